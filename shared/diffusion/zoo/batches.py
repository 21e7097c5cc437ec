"""Batches of tensors that live on the device, drawn with replacement."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Draws(Iterator[tuple[Tensor, ...]]):
    """`steps` batches of `batch` rows that the tensors share, drawn from a CPU generator."""

    def __init__(self, tensors: Sequence[Tensor], steps: int, batch: int, generator: torch.Generator) -> None:
        self._tensors, self._left, self._batch, self._generator = tensors, steps, batch, generator
        self._length = steps

    def __len__(self) -> int:
        return self._length

    def __next__(self) -> tuple[Tensor, ...]:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        rows = torch.randint(0, len(self._tensors[0]), (self._batch,), generator=self._generator)
        return tuple(tensor[rows.to(tensor.device)] for tensor in self._tensors)
