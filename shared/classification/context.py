"""What a method gets besides model and data: device, seeds, the training loop, the weight mask, and
the meter.

Everything random comes from named CPU generators: the same row seed gives the same run on any
device, and a method that draws one stream more does not change the others.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from shared.classification.masks import Mask, intersect, shift
from shared.classification.options import AdamOptions, SgdOptions
from shared.errors import UserError
from shared.results.records import Cost, Metric
from shared.training.checkpoint import Checkpoint
from shared.training.loop import EpochBatches, FitResult, Hook, Loss, Stop, fit
from shared.training.mask import WeightMask
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule
from shared.training.seeds import stream, stream_seed
from shared.training.state import Stateful


@dataclass
class Meter:
    """What unlearning costs. steps: forward/backward batches; recovered_seconds: spent before a
    kill; stage: cost of the stage that *is* the result (Retrain), instead of this run's."""

    steps: int = 0
    recovered_seconds: float = 0.0
    stage: Cost | None = None


@dataclass(frozen=True)
class Context:
    """One run of one method.

    build: makes an untrained network (seed) -> model on the device; stages: loader of a stage
    (name) -> (model, its cost); workdir and key: where training keeps its checkpoints (None:
    nowhere) and the digest of the run they belong to; mask: weights that may move, a pruned model's to begin with;
    pruned: the pruned model's mask itself, empty for a dense one;
    extras: small JSON values that a method leaves for figures; measured: its own metrics.
    """

    device: torch.device
    seed: int
    num_classes: int
    build: Callable[[int], nn.Module]
    stages: Callable[[str], tuple[nn.Module, Cost]]
    workdir: Path | None = None
    key: str = ""
    mask: Mask | None = None
    pruned: Mask = field(default_factory=dict)
    mask_leak: bool = False
    meter: Meter = field(default_factory=Meter)
    extras: dict[str, Any] = field(default_factory=dict)
    measured: list[Metric] = field(default_factory=list)

    def generator(self, name: str) -> torch.Generator:
        """A fresh CPU generator of this run's stream `name`."""
        return stream(self.seed, name)

    def fresh_model(self, name: str = "fresh model") -> nn.Module:
        """An untrained network of the same architecture, on the device; another `name` is another
        initialisation."""
        return self.build(stream_seed(self.seed, name))

    def stage(self, name: str) -> nn.Module:
        """The model of a stage that is itself the row's result: its cost becomes the row's."""
        model, self.meter.stage = self.stages(name)
        return model

    def with_mask(self, mask: Mask, leak: bool = False) -> "Context":
        """The same run, in which `fit` and `shift` move only the weights of `mask` (and of a mask
        set before)."""
        return replace(self, mask=intersect(self.mask, mask), mask_leak=leak)

    def measure(self, name: str, value: float, unit: str = "") -> None:
        """Record a metric of the method's own, which its paper's config declares under `metrics`."""
        self.measured.append(Metric(name, value, unit))

    def count(self, num_batches: int) -> None:
        """Add forward/backward batches that were not made by `fit`."""
        self.meter.steps += num_batches

    def shift(self, model: nn.Module, direction: list[Tensor]) -> None:
        """Add `direction` (a tensor a parameter) to the weights that the mask lets move."""
        shift(model, direction, self.mask)

    def fit(
        self,
        model: nn.Module,
        epoch_batches: EpochBatches,
        loss: Loss,
        options: SgdOptions | AdamOptions,
        *,
        stream: str = "unlearn",
        schedule: ScheduleOptions | None = None,
        on_epoch_start: Hook | None = None,
        after_step: Hook | None = None,
        stop: Stop | None = None,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> FitResult:
        """Train `model` in place with the options' optimiser; the shared loop, under this run's
        mask.

        stream: names the generator of order and augmentation and the checkpoint; two calls in one
        method take two. stop: asked after every epoch, True ends the training (`stopping.forgotten`).
        """
        masked = WeightMask(model, self.mask, self.mask_leak) if self.mask is not None else None
        kept = {**(stateful or {}), **({"mask": masked} if masked else {})}
        started = time.perf_counter()
        result = fit(
            model,
            epoch_batches,
            loss,
            optimizer=make_optimizer(model.parameters(), optimizer_options(options)),
            epochs=options.epochs,
            generator=self.generator(stream),
            schedule=Schedule(schedule, options.epochs) if schedule else None,
            on_epoch_start=on_epoch_start,
            after_backward=masked.after_backward if masked else None,
            after_step=_both(after_step, masked.after_step if masked else None),
            stop=stop,
            checkpoint=self._checkpoint(stream),
            stateful=kept,
            description=stream,
        )
        self.meter.steps += result.steps
        self.meter.recovered_seconds += max(0.0, result.seconds - (time.perf_counter() - started))
        return result

    def _checkpoint(self, stream: str) -> Checkpoint | None:
        if self.workdir is None:
            return None
        return Checkpoint(self.workdir / f"{stream.replace(' ', '-')}.checkpoint.pt", key=f"{self.key}/{stream}")


class OptimizerValues(Protocol):
    """What every optimiser's options have."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def weight_decay(self) -> float:
        """L2 penalty, added to the gradient."""


def optimizer_options(options: OptimizerValues) -> OptimizerOptions:
    """SGD for options with a momentum, else Adam. (Options may be of a class read from source: no
    isinstance.)"""
    momentum = getattr(options, "momentum", None)
    if momentum is None:
        return OptimizerOptions(kind="adam", lr=options.lr, weight_decay=options.weight_decay)
    return OptimizerOptions(kind="sgd", lr=options.lr, momentum=momentum, weight_decay=options.weight_decay)


def _both(first: Hook | None, second: Hook | None) -> Hook | None:
    if first is None or second is None:
        return first or second

    def hook(state: Any) -> None:
        first(state)
        second(state)

    return hook


def one_class(labels: Tensor, method: str) -> int:
    """The class of D_f, for class-wise methods. Raises UserError when D_f holds several."""
    classes = labels.unique()
    if len(classes) != 1:
        raise UserError(
            f"method '{method}' forgets a class, but D_f holds {len(classes)} classes; use forget.rule: class"
        )
    return int(classes[0])
