"""Batches of images of mixed sizes: normalised, padded with zeros at the right and bottom, with what is in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.detection.augment import augment
from shared.detection.examples import Example, Examples
from shared.detection.options import Augmentation, PixelOptions
from shared.segmentation.samples import Array


@dataclass(frozen=True)
class Target:
    """Objects of one image. boxes: (n, 4) x1, y1, x2, y2; classes: (n,) int64 from 0; masks: (n, h, w) bool, of the
    image without its padding."""

    boxes: Tensor
    classes: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> "Target":
        return Target(*(value.to(device) for value in (self.boxes, self.classes, self.masks)))


class Batch(NamedTuple):
    """images: (B, 3, H, W), normalised; sizes: (B, 2) height and width of each image without its padding, on the CPU;
    targets: one an image, or none at all for images that are only looked at."""

    images: Tensor
    sizes: Tensor
    targets: list[Target]

    def to(self, device: torch.device | None) -> "Batch":
        """The batch on a device; None: where it is."""
        if device is None or device == self.images.device:
            return self
        return Batch(self.images.to(device), self.sizes, [target.to(device) for target in self.targets])

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Sizes as plain numbers."""
        return [(height, width) for height, width in self.sizes.tolist()]


def image_batch(images: Sequence[Array], pixels: PixelOptions) -> Batch:
    """Pictures (h, w, 3) uint8 of any sizes as a batch without targets, on the CPU."""
    sizes = [image.shape[:2] for image in images]
    height, width = (-(-max(sides) // pixels.divisor) * pixels.divisor for sides in zip(*sizes, strict=True))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (pixels.mean, pixels.std))
    batch = torch.zeros(len(images), 3, height, width)
    for index, image in enumerate(images):
        # a mirrored picture has negative strides, which torch does not take
        picture = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)
        batch[index, :, : image.shape[0], : image.shape[1]] = (picture - mean) / std
    return Batch(batch, torch.tensor(sizes), [])


def example_batch(examples: Sequence[Example], pixels: PixelOptions) -> Batch:
    """Examples as a batch, on the CPU."""
    batch = image_batch([example.image for example in examples], pixels)
    targets = [
        Target(
            torch.from_numpy(example.boxes),
            torch.from_numpy(example.classes),
            torch.from_numpy(np.ascontiguousarray(example.masks)),
        )
        for example in examples
    ]
    return batch._replace(targets=targets)


class EpochBatches:
    """Augmented batches of one epoch, in random order; the last one may be smaller.

    Order and augmentation hang on `seed` and the example's place in the epoch alone, so a resumed training skips
    batches without making them. workers: processes that prepare batches; 0: this one does.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        seed: int,
        augmentation: Augmentation,
        pixels: PixelOptions,
        device: torch.device | None = None,
        workers: int = 0,
    ) -> None:
        order = np.random.default_rng([seed, 0]).permutation(len(examples))
        self._drawn = _Drawn(examples, order, seed, augmentation)
        self._places = [list(range(start, min(start + size, len(order)))) for start in range(0, len(order), size)]
        self._pixels, self._device, self._workers = pixels, device, workers
        self._loaded: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def skip(self, num_batches: int) -> None:
        """Start after that many batches."""
        self._loaded = self._batches(num_batches)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._loaded is None:
            self._loaded = self._batches(0)
        return next(self._loaded).to(self._device)

    def _batches(self, first: int) -> Iterator[Batch]:
        return iter(
            DataLoader(
                self._drawn,
                batch_sampler=self._places[first:],
                collate_fn=partial(example_batch, pixels=self._pixels),
                num_workers=self._workers,
                generator=torch.Generator(),  # else it draws from torch's own, which losses use, too
            )
        )


@dataclass(frozen=True)
class _Drawn(Dataset[Example]):
    """The augmented example at each place of an epoch."""

    examples: Examples
    order: Array
    seed: int
    augmentation: Augmentation

    def __getitem__(self, place: int) -> Example:
        rng = np.random.default_rng([self.seed, 1, place])
        return augment(self.examples[int(self.order[place])], self.augmentation, rng)


def epoch_batches(
    examples: Examples,
    size: int,
    augmentation: Augmentation,
    pixels: PixelOptions,
    device: torch.device | None,
    generator: torch.Generator,
    workers: int = 0,
) -> EpochBatches:
    """The batches of the next epoch, its seed drawn from `generator`."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return EpochBatches(examples, size, seed, augmentation, pixels, device, workers)
