"""Training of causal language models: fine-tuning on answers, and unlearning with a loss; both on the shared loop."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from shared.text.batches import Padding, Planned, TextBatch, TrainBatches, UnlearnBatch, UnlearnBatches
from shared.text.encode import EncodedRow, Encoder
from shared.text.losses.context import LossContext
from shared.text.losses.tokens import mean_nll
from shared.text.options import UnlearnOptions
from shared.text.task import FinetuneRecipe
from shared.training.checkpoint import Checkpoint
from shared.training.loop import EpochHook, FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule

Batch = TypeVar("Batch")


class Announced(Iterator[Batch], Generic[Batch]):
    """Batches that tell the loss's context about themselves before they are used: means over tokens need the totals of
    the whole batch, of which a device may see a part."""

    def __init__(self, batches: Planned[Any, Batch], first_step: int, begin: Callable[[Batch, int], None]) -> None:
        self._batches, self._step, self._begin = batches, first_step, begin

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._begin(batch, self._step)
        self._step += 1
        return batch

    def skip(self, count: int) -> None:
        """Pass over the next `count` batches."""
        self._batches.skip(count)
        self._step += count


class ContextState:
    """The tensors that a loss keeps, for the loop's checkpoints."""

    def __init__(self, context: LossContext) -> None:
        self._context = context

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name."""
        return dict(self._context.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._context.state.update(state)


def finetune(
    model: nn.Module,
    rows: list[EncodedRow],
    encoder: Encoder,
    recipe: FinetuneRecipe,
    *,
    generator: Callable[[str], torch.Generator],
    checkpoint: Checkpoint | None,
    description: str = "fine-tune",
) -> FitResult:
    """Train `model` in place on the rows' answers: mean cross-entropy over all labels of a batch."""
    context = LossContext(generator)
    batches = TrainBatches(rows, padding(model, encoder), recipe.batch, bucket=recipe.bucket)

    def epoch(number: int, stream: torch.Generator) -> Announced[TextBatch]:
        planned = batches(number, stream)
        return Announced(planned, number * len(planned), lambda b, step: context.begin_step(UnlearnBatch(b, b), step))

    return fit(
        model,
        epoch,
        lambda net, batch: mean_nll(net, batch, "forget", context),
        optimizer=make_optimizer(model.parameters(), adamw(recipe)),
        epochs=recipe.epochs,
        generator=generator("batches"),
        schedule=schedule(recipe),
        checkpoint=checkpoint,
        description=description,
    )


def unlearn(
    model: nn.Module,
    batches: UnlearnBatches,
    loss: Callable[[nn.Module, UnlearnBatch], Tensor],
    options: UnlearnOptions,
    context: LossContext,
    *,
    on_epoch_end: EpochHook,
    workdir: Path,
    key: str,
) -> FitResult:
    """Unlearn in place with `loss`; a killed run goes on from its checkpoint in `workdir`."""

    def epoch(number: int, stream: torch.Generator) -> Announced[UnlearnBatch]:
        planned = batches(number, stream)
        return Announced(planned, number * len(planned), context.begin_step)

    return fit(
        model,
        epoch,
        loss,
        optimizer=make_optimizer(model.parameters(), adamw(options)),
        epochs=options.epochs,
        generator=context.generator("batches"),
        schedule=schedule(options),
        on_epoch_end=on_epoch_end,
        stateful={"loss": ContextState(context)},
        checkpoint=Checkpoint(workdir / "unlearn.checkpoint.pt", key=key),
        description="unlearn",
    )


def adamw(options: FinetuneRecipe | UnlearnOptions) -> OptimizerOptions:
    """AdamW with the betas of all the released codes."""
    return OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)


def schedule(options: FinetuneRecipe | UnlearnOptions) -> Schedule:
    """Warm-up, then decay, changed at every step."""
    return Schedule(ScheduleOptions(kind=options.schedule, unit="step", warmup=options.warmup), options.epochs)


def padding(model: nn.Module, encoder: Encoder) -> Padding:
    """How batches for `model` are padded."""
    return Padding(encoder.pad_id, device=next(model.parameters()).device)
