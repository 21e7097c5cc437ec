"""The training loop: one for all methods, on one device or several, resumable at any step.

Order of a step: forward and backward (in micro-batches if memory asks for it), clipping,
`after_backward`, optimizer, `after_step`, average of weights, checkpoint.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch

# The first optimizer would import it (3 s of CPU); here, processes that are forked later share it.
import torch._dynamo
from torch import Tensor, nn
from tqdm import tqdm

from shared.gpu.micro_batch import MicroBatch, Piece
from shared.gpu.precision import Precision, precision_for
from shared.training.checkpoint import Checkpoint
from shared.training.ema import Ema
from shared.training.processes import Processes
from shared.training.resume import Resume
from shared.training.schedule import Schedule
from shared.training.state import LoopState, Stateful

Hook = Callable[[LoopState], None]
EpochHook = Callable[[LoopState], Mapping[str, float] | None]
Stop = Callable[[LoopState], bool]
EpochBatches = Callable[[int, torch.Generator], Iterable[Any]]
Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class FitResult:
    """steps: optimizer steps; seconds: wall time, with that before a kill; history: a dict an
    epoch, with `epoch` (from 1), `lr` (its last), `loss` (mean over its steps, None if not finite)
    and what on_epoch_end returned."""

    steps: int
    seconds: float
    history: list[dict[str, float | None]]


def fit(
    model: nn.Module,
    epoch_batches: EpochBatches,
    loss: Loss,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    generator: torch.Generator,
    schedule: Schedule | None = None,
    max_grad_norm: float | None = None,
    ema: Ema | None = None,
    on_epoch_start: Hook | None = None,
    after_backward: Hook | None = None,
    after_step: Hook | None = None,
    on_epoch_end: EpochHook | None = None,
    stop: Stop | None = None,
    checkpoint: Checkpoint | None = None,
    stateful: Mapping[str, Stateful] | None = None,
    precision: Precision | None = None,
    micro_batch: int | None = None,
    description: str = "train",
) -> FitResult:
    """Train `model` in place, on its device, in train mode (set before `on_epoch_start`).

    epoch_batches(epoch, generator): the *total* batches of an epoch (epochs count from 0), the same
        in every process; a batch is a tensor or a (named) tuple, dict or list of tensors.
    loss(model, batch): scalar, a mean over the batch's samples; calls the model that it is given.
    generator: CPU generator of order and augmentation.
    after_backward: the gradients are final (clipped); weight masks go here.
    on_epoch_end: may return numbers for the history.
    stop: asked after every epoch (state.epoch: the finished ones), True ends the training there.
    checkpoint: resume after a kill gives the same weights to the bit. `on_epoch_start` is not
        repeated for an epoch that had begun, so what hooks remember belongs in `stateful` (name ->
        object). The checkpoint of a finished run stays: a second call returns at once, trained.
    micro_batch: most samples on a device at once; None finds out when memory runs out.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    precision = precision or precision_for(next(model.parameters()).device)
    precision.activate()
    precision.arrange(model)
    processes = Processes(model, precision)
    # With several processes all must cut alike, and one that runs out of memory cannot tell the
    # others.
    micro = MicroBatch(micro_batch, retry=processes.count == 1)
    kept = {**(stateful or {}), "micro_batch of fit": micro, **({"ema of fit": ema} if ema else {})}
    stopped = _Stopped()
    if stop is not None:
        kept["stop of fit"] = stopped
    step = _Step(loss, max_grad_norm, ema, after_backward, after_step, precision, processes, micro)
    state, resume = LoopState(model, optimizer, epochs, generator), Resume(checkpoint, kept)
    resume.restore(state)
    processes.wait()  # nobody overwrites a checkpoint that another process still reads
    if stopped.value or state.epoch >= epochs:
        return FitResult(state.step, resume.elapsed(), state.history)
    with tqdm(desc=description, unit="step", leave=False, initial=state.step, disable=None) as bar:
        while state.epoch < epochs and not stopped.value:
            if state.step_in_epoch == 0:
                state.loss_sum = 0.0
                model.train()
                if on_epoch_start:
                    on_epoch_start(state)
                resume.mark_epoch(generator)
            batches = epoch_batches(state.epoch, generator)
            state.steps_per_epoch = len(batches) if isinstance(batches, Sized) else None
            bar.total = state.epochs * state.steps_per_epoch if state.steps_per_epoch else None
            iterator = iter(batches)
            resume.skip_used(iterator, state)
            if schedule is not None and not schedule.per_step:
                _set_rate(state, schedule)
            for state.batch in iterator:
                if schedule is not None and schedule.per_step:
                    _set_rate(state, schedule)
                step(state)
                bar.update()
                if resume.is_due() and processes.is_main:
                    resume.save(state)
            _finish_epoch(state, processes, on_epoch_end)
            stopped.value = stop is not None and _all_stop(stop, state, processes)
        if processes.is_main:
            resume.save(state)
    return FitResult(state.step, resume.elapsed(), state.history)


@dataclass
class _Stopped:
    """Whether `stop` has ended the run: part of the checkpoint, or a finished run would go on."""

    value: bool = False

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@dataclass(frozen=True)
class _Step:
    """One optimizer step on the total batch."""

    loss: Loss
    max_grad_norm: float | None
    ema: Ema | None
    after_backward: Hook | None
    after_step: Hook | None
    precision: Precision
    processes: Processes
    micro: MicroBatch

    def __call__(self, state: LoopState) -> None:
        share = self.processes.share(state.batch)
        state.loss = self.micro.run(
            share.batch,
            lambda pieces: self._gradients(state.optimizer, pieces, share.weight),
            share.num_samples,
        )
        state.loss_sum = state.loss_sum + state.loss
        if self.max_grad_norm is not None:
            trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        if self.after_backward is not None:
            self.after_backward(state)
        state.optimizer.step()
        if self.after_step is not None:
            self.after_step(state)
        if self.ema is not None:
            self.ema.update(state.model)
        state.step += 1
        state.step_in_epoch += 1

    def _gradients(self, optimizer: torch.optim.Optimizer, pieces: list[Piece], weight: float) -> Tensor:
        """Gradient of the batch's mean loss, summed over its pieces; returns the loss, detached."""
        optimizer.zero_grad(set_to_none=True)
        total: Tensor | None = None
        for index, (batch, share) in enumerate(pieces):
            with self.processes.gradients_stay_local(index < len(pieces) - 1):
                with self.precision.context():
                    value = self.loss(self.processes.model, batch)
                if weight * share != 1.0:
                    value = value * (weight * share)
                value.backward()
            total = value.detach() if total is None else total + value.detach()
        if total is None:
            raise ValueError("a batch without samples")
        return total


def _all_stop(stop: Stop, state: LoopState, processes: Processes) -> bool:
    """One answer for all processes: each may see batch-norm statistics of its own, and one that went on would wait for
    the others for ever."""
    answer = torch.tensor(float(stop(state)), device=next(state.model.parameters()).device)
    return processes.mean(answer) >= 0.5


def _set_rate(state: LoopState, schedule: Schedule) -> None:
    if schedule.per_step and state.steps_per_epoch is None:
        raise ValueError("a learning rate that changes at every step needs batches with a length")
    factor = schedule.factor(state.epoch, state.step_in_epoch, state.steps_per_epoch or 1)
    for group in state.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _finish_epoch(state: LoopState, processes: Processes, on_epoch_end: EpochHook | None) -> None:
    mean = processes.mean(state.loss_sum) / max(state.step_in_epoch, 1)
    finite = math.isfinite(mean)
    if not finite:
        warnings.warn(f"the mean loss of epoch {state.epoch + 1} is {mean}: the run diverges", stacklevel=3)
    rate = float(state.optimizer.param_groups[0]["lr"])
    row: dict[str, float | None] = {
        "epoch": state.epoch + 1,
        "lr": rate,
        "loss": mean if finite else None,
    }
    if on_epoch_end is not None:
        row.update(on_epoch_end(state) or {})
    state.history.append(row)
    state.epoch, state.step_in_epoch = state.epoch + 1, 0
