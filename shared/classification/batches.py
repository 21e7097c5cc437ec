"""Epochs made of two data sets: what the unlearning methods feed to the training loop."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from shared.training.device_images import Batch, Batches, DeviceImages


class Marked(NamedTuple):
    """images (B, C, H, W), labels (B,), and whether a sample is of D_f (B,) bool.

    The loop cuts a batch by samples when memory is short, so a loss over Marked must be a mean over
    samples. weight (B,): factor on each sample's loss.
    """

    images: Tensor
    labels: Tensor
    forget: Tensor
    weight: Tensor


class Chained(Iterator[Batch]):
    """Batches of several data sets, one after another."""

    def __init__(self, *parts: Batches) -> None:
        self._parts = list(parts)
        self._num_batches = sum(len(part) for part in parts)

    def __len__(self) -> int:
        return self._num_batches

    def __next__(self) -> Batch:
        while self._parts:
            batch = next(self._parts[0], None)
            if batch is not None:
                return batch
            self._parts.pop(0)
        raise StopIteration


def marked(batch: Batch, forget: Tensor) -> Marked:
    """A batch with the mark of every sample, and equal weights."""
    return Marked(
        batch.images,
        batch.labels,
        forget,
        torch.ones(len(batch.labels), device=batch.labels.device),
    )


def endless(data: DeviceImages, batch: int, generator: torch.Generator) -> Iterator[Batch]:
    """Shuffled batches without end, shuffled anew at each pass."""
    while True:
        yield from data.batches(batch, generator)


def random_labels(data: DeviceImages, generator: torch.Generator, exclude_own: bool = False) -> Tensor:
    """Uniform labels (N,) over all classes, or over all but each image's own."""
    num_classes = data.num_classes - exclude_own
    drawn = torch.randint(0, num_classes, (len(data),), generator=generator).to(data.device)
    return drawn + (drawn >= data.labels) if exclude_own else drawn


def num_batches(data: DeviceImages, batch: int) -> int:
    """Batches of one epoch, the last one maybe smaller."""
    return -(-len(data) // batch)
