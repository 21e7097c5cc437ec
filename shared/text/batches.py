"""Batches of encoded rows: padding, order, and how forget rows meet retain rows.

An epoch is planned as row numbers first, from one CPU generator, and collated batch by batch: the
same seed gives the same batches on any device, and a resumed run skips without collating.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from shared.errors import ConfigError, DataError
from shared.text.encode import IGNORED, EncodedRow, Encoder

Batch = TypeVar("Batch")
Plan = TypeVar("Plan")
Pairing = Literal["legacy", "uniform"]


class TextBatch(NamedTuple):
    """Rows padded to one width; all tensors (B, T).

    input_ids: int64. attention_mask: int64, 1 = attended. labels: int64, -100 = not in the loss;
    labels[i, t] is predicted from position t-1, as transformers' causal models do it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


class UnlearnBatch(NamedTuple):
    """The rows of one optimiser step. forget and retain share B and may differ in T.

    refusal: the forget questions, each with a refusal as its answer; only for losses that ask for it.
    """

    forget: TextBatch
    retain: TextBatch
    refusal: TextBatch | None = None


def num_targets(batch: TextBatch) -> int:
    """Labels that count. The first column is predicted from nothing and never counts."""
    return int((batch.labels[:, 1:] != IGNORED).sum())


def padding_share(batches: Sequence[TextBatch]) -> float:
    """Share of all positions, in [0, 1], that hold no token and no label."""
    used = sum(int(((b.attention_mask != 0) | (b.labels != IGNORED)).sum()) for b in batches)
    total = sum(b.input_ids.numel() for b in batches)
    return 1 - used / total if total else 0.0


def collate(
    rows: Sequence[EncodedRow],
    pad_id: int,
    *,
    pad_to: int | None = None,
    multiple: int = 1,
    device: torch.device | str = "cpu",
) -> TextBatch:
    """Pad rows on the right to the longest of them: ids `pad_id`, attention 0, labels -100.

    pad_to: this width instead, as the released code has it; only KL over all positions sees the
    difference. multiple: round the width up (tensor cores like multiples of 8). Raises DataError if
    there is no row, or `pad_to` is narrower than one.
    """
    if not rows:
        raise DataError("a batch without rows")
    longest = max(rows, key=lambda row: len(row.input_ids))
    width = -(-len(longest.input_ids) // multiple) * multiple
    if pad_to is not None:
        if pad_to < len(longest.input_ids):
            raise DataError(f"row {longest.index} has {len(longest.input_ids)} tokens, wider than pad_to = {pad_to}")
        width = pad_to

    def padded(values: list[list[int]], fill: int) -> Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in values], dtype=torch.int64, device=device)

    return TextBatch(
        padded([row.input_ids for row in rows], pad_id),
        padded([row.attention_mask for row in rows], 0),
        padded([row.labels for row in rows], IGNORED),
    )


def epoch_order(num_rows: int, generator: torch.Generator) -> list[int]:
    """A random order of the rows."""
    return [int(i) for i in torch.randperm(num_rows, generator=generator)]


def plan_batches(
    lengths: Sequence[int], batch: int, generator: torch.Generator, *, bucket: int = 0, drop_last: bool = False
) -> list[list[int]]:
    """Row numbers of each batch of one epoch.

    bucket: 0 for a plain random order; k sorts every k batches' worth of the random order by length
    before cutting it, then shuffles the batches: little padding, and still other batches in every
    epoch. drop_last leaves out a smaller last batch (the released code's count of steps). Raises
    ConfigError if no batch is left.
    """
    order = epoch_order(len(lengths), generator)
    if bucket:
        spans = range(0, len(order), batch * bucket)
        order = [i for a in spans for i in sorted(order[a : a + batch * bucket], key=lambda i: lengths[i])]
    plan = [order[a : a + batch] for a in range(0, len(order), batch)]
    if drop_last and plan and len(plan[-1]) < batch:
        plan.pop()
    if not plan:
        raise ConfigError(f"batch {batch} is larger than the {len(lengths)} rows, and drop_last leaves nothing")
    return [plan[i] for i in epoch_order(len(plan), generator)] if bucket else plan


class Planned(Iterator[Batch], Generic[Plan, Batch]):
    """Batches made from their plans one by one; has a length, and skips without making them."""

    def __init__(self, plans: Sequence[Plan], make: Callable[[Plan], Batch]) -> None:
        self._plans, self._make, self._next = plans, make, 0

    def __len__(self) -> int:
        return len(self._plans)

    def __next__(self) -> Batch:
        if self._next >= len(self._plans):
            raise StopIteration
        self._next += 1
        return self._make(self._plans[self._next - 1])

    def skip(self, count: int) -> None:
        """Pass over the next `count` batches."""
        self._next += count


@dataclass(frozen=True)
class Padding:
    """How batches are padded; see `collate`. The training loop calls on the device it runs on."""

    pad_id: int
    pad_to: int | None = None
    multiple: int = 1
    device: torch.device | str = "cpu"

    def __call__(self, rows: Sequence[EncodedRow]) -> TextBatch:
        """Collate rows."""
        return collate(rows, self.pad_id, pad_to=self.pad_to, multiple=self.multiple, device=self.device)


@dataclass(frozen=True)
class TrainBatches:
    """Epochs over one set of rows, for fine-tuning: call with (epoch, generator)."""

    rows: Sequence[EncodedRow]
    padding: Padding
    batch: int
    bucket: int = 0
    drop_last: bool = False

    def __call__(self, epoch: int, generator: torch.Generator) -> Planned[list[int], TextBatch]:
        """Batches of one epoch, in an order of its own."""
        lengths = [len(row.input_ids) for row in self.rows]
        plans = plan_batches(lengths, self.batch, generator, bucket=self.bucket, drop_last=self.drop_last)
        return Planned(plans, lambda plan: self.padding([self.rows[i] for i in plan]))


@dataclass(frozen=True)
class Refusals:
    """Forget questions with refusals as answers; which refusal is drawn anew at every access.

    questions: (index, question) of the forget rows in their order. texts: lines of the refusal file.
    """

    encoder: Encoder
    questions: Sequence[tuple[int, str]]
    texts: Sequence[str]
    _encoded: dict[tuple[int, int], EncodedRow] = field(default_factory=dict, repr=False, compare=False)

    def row(self, position: int, choice: int) -> EncodedRow:
        """Forget question at `position`, answered by refusal `choice`."""
        key = position, choice
        if key not in self._encoded:
            self._encoded[key] = self.encoder.row(*self.questions[position], self.texts[choice])
        return self._encoded[key]


class _Step(NamedTuple):
    """Row numbers of one step: forget and retain rows, and the refusal of each forget row."""

    forget: list[int]
    retain: list[int]
    refusal: list[int]


@dataclass(frozen=True)
class UnlearnBatches:
    """Epochs over the forget rows, each paired with one retain row: call with (epoch, generator).

    pairing: "legacy" takes retain row (i + U{0..N_r-1}) mod N_r for forget row i (released code),
    "uniform" a uniform one (OpenUnlearning); the distribution is the same, the random stream is not.
    """

    forget: Sequence[EncodedRow]
    retain: Sequence[EncodedRow]
    padding: Padding
    batch: int
    pairing: Pairing = "uniform"
    refusals: Refusals | None = None
    drop_last: bool = False

    def __call__(self, epoch: int, generator: torch.Generator) -> Planned[_Step, UnlearnBatch]:
        """Batches of one epoch; order, pairs and refusals are drawn anew."""
        if not self.retain:
            raise DataError("no retain rows to pair the forget rows with")
        plans = plan_batches([0] * len(self.forget), self.batch, generator, drop_last=self.drop_last)
        return Planned([self._step(plan, generator) for plan in plans], self._make)

    def _step(self, plan: list[int], generator: torch.Generator) -> _Step:
        drawn = retain_rows(plan, len(self.retain), self.pairing, generator)
        refusal: list[int] = []
        if self.refusals is not None:
            choices = torch.randint(len(self.refusals.texts), (len(plan),), generator=generator)
            refusal = [int(choice) for choice in choices]
        return _Step(plan, drawn, refusal)

    def _make(self, step: _Step) -> UnlearnBatch:
        refusal = None
        if self.refusals is not None:
            pairs = zip(step.forget, step.refusal, strict=True)
            refusal = self.padding([self.refusals.row(position, choice) for position, choice in pairs])
        return UnlearnBatch(
            self.padding([self.forget[i] for i in step.forget]),
            self.padding([self.retain[i] for i in step.retain]),
            refusal,
        )


def retain_rows(forget: Sequence[int], num_retain: int, pairing: Pairing, generator: torch.Generator) -> list[int]:
    """One retain row number for each forget row number."""
    drawn = [int(i) for i in torch.randint(num_retain, (len(forget),), generator=generator)]
    if pairing == "legacy":
        return [(i + offset) % num_retain for i, offset in zip(forget, drawn, strict=True)]
    return drawn
