"""Batches of one epoch, made of images that are augmented one by one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Batch = TypeVar("Batch")
_AHEAD = 3  # batches in the making while one is used


class AugmentedBatches(Iterator[Batch], Generic[Item, Batch]):
    """One shuffled pass over `num_images` images; the last batch may be smaller.

    make(index, rng) gives an image's item, collate(items) a batch. The order and a seed for every image are drawn from
    `generator` at once, so batches do not depend on the number of threads, and `skip` costs nothing. threads: with
    more than one, the next batches are made while the current one is used; what NumPy and SciPy compute then runs at
    the same time. `make` should not call torch, which would start threads of its own in each of these.
    """

    def __init__(
        self,
        num_images: int,
        batch: int,
        make: Callable[[int, np.random.Generator], Item],
        collate: Callable[[Sequence[Item]], Batch],
        generator: torch.Generator,
        threads: int = 1,
    ) -> None:
        order = torch.randperm(num_images, generator=generator).tolist()
        seeds = torch.randint(2**62, (num_images,), generator=generator).tolist()
        rows = list(zip(order, seeds, strict=True))
        self._plans = [rows[start : start + batch] for start in range(0, num_images, batch)]
        self._make, self._collate, self._next = make, collate, 0
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._started: deque[list[Future[Item]]] = deque()

    def __len__(self) -> int:
        return len(self._plans)

    def skip(self, count: int) -> None:
        """Pass over the next `count` batches."""
        self._next += count
        self._started.clear()

    def __next__(self) -> Batch:
        if self._next >= len(self._plans):
            self._close()
            raise StopIteration
        if self._pool is None:
            items = [self._one(index, seed) for index, seed in self._plans[self._next]]
        else:
            while len(self._started) <= _AHEAD and self._next + len(self._started) < len(self._plans):
                plan = self._plans[self._next + len(self._started)]
                self._started.append([self._pool.submit(self._one, *row) for row in plan])
            items = [future.result() for future in self._started.popleft()]
        self._next += 1
        return self._collate(items)

    def _one(self, index: int, seed: int) -> Item:
        return self._make(index, np.random.default_rng(seed))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)
