"""Epochs of a chosen number of steps, whose batches are made here or in worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.errors import DataError
from shared.segmentation.samples import Array

Batch = TypeVar("Batch")


class Step(NamedTuple):
    """What a batch is made of. number: of the step in its epoch, from 0; positions: (B,) int64 in the data; rng: seeded
    by the epoch and the number alone, so that it does not matter who makes the batch, or when."""

    number: int
    positions: Array
    rng: np.random.Generator


Make = Callable[[Step], Batch]


@dataclass(frozen=True)
class Plan:
    """What an epoch is made of: positions in the data, (steps, batch) int64, and the seed of everything random."""

    order: Tensor
    seed: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> Step:
        return Step(number, self.order[number].numpy(), np.random.default_rng((self.seed, number)))


def plan_epoch(num: int, batch: int, steps: int | None, generator: torch.Generator) -> Plan:
    """An epoch over `num` samples: `steps` steps, or None for one pass without a smaller last batch.

    Samples come in random order, each of them once before any comes again. Raises DataError for an epoch without steps.
    """
    if num == 0 or (steps is None and num < batch):
        raise DataError(f"{num} training samples make no batch of {batch}: give a smaller batch or more data")
    length = (steps or num // batch) * batch
    passes = [torch.randperm(num, generator=generator) for _ in range(-(-length // num))]
    seed = int(torch.randint(2**62, (), generator=generator))
    return Plan(torch.cat(passes)[:length].view(-1, batch), seed)


class Steps(Iterator[Batch], Generic[Batch]):
    """One epoch of batches, `make(step)` for each step of the plan.

    workers: processes that make batches ahead, in order; 0: this one. `make` must not use any other random state, and
    with workers it is pickled or forked with what it holds.
    """

    def __init__(self, plan: Plan, make: Make[Batch], workers: int = 0) -> None:
        self._plan, self._make, self._workers = plan, make, workers
        self._first = 0
        self._made: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def skip(self, count: int) -> None:
        """Start after the next `count` batches, which are never made."""
        self._first += count

    def __next__(self) -> Batch:
        if self._made is None:
            self._made = self._start()
        return next(self._made)

    def _start(self) -> Iterator[Batch]:
        made, steps = _Made(self._plan, self._make), range(self._first, len(self))
        if self._workers == 0:
            return (made[number] for number in steps)
        # A generator of its own: the loader would else move the global one, and a resumed run differ.
        loader: DataLoader[Any] = DataLoader(
            made,
            batch_size=None,
            sampler=steps,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        return iter(loader)


@dataclass(frozen=True)
class _Made(Dataset[Any]):
    """The batches of an epoch by their step."""

    plan: Plan
    make: Make[Any]

    def __getitem__(self, number: int) -> Any:
        return self.make(self.plan[number])


def _as_it_is(batch: Batch) -> Batch:
    return batch
