"""Image sets that live on the device, with batches gathered and augmented there.

A data set of CIFAR's size is 150 MB as bytes: copied once, it makes loader processes, decoding and
transfers disappear from a training step. All of an epoch's random choices (order, crops, mirrors)
are drawn at its start from one CPU generator, so CPU and GPU runs see the same crops and a resumed
run can skip batches for nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shared.errors import DataError
from shared.training.options import Augment


class Arrays(Protocol):
    """A decoded data set: images (N, H, W, C) uint8 or float32 in [0, 1], labels (N,)."""

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]


class Batch(NamedTuple):
    """images (B, C, H, W) float32, bytes scaled to [0, 1]; labels (B,) int64.

    indices (B,) int64: positions in the data set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


@dataclass
class DeviceImages:
    """images (N, C, H, W) uint8 or float32 and labels (N,) int64 in [0, num_classes)."""

    images: Tensor
    labels: Tensor
    num_classes: int
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            shape, kind = tuple(self.images.shape), self.images.dtype
            raise DataError(f"images must be (N, C, H, W) of uint8 or float32, these are {shape} of {kind}")
        if self.labels.shape != self.images.shape[:1]:
            raise DataError(f"{len(self.images)} images but labels of shape {tuple(self.labels.shape)}")
        wrong = ((self.labels < 0) | (self.labels >= self.num_classes)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            label = int(self.labels[row])
            raise DataError(f"label {label} of image {row} is not one of the {self.num_classes} classes")

    @classmethod
    def from_arrays(cls, arrays: Arrays, device: torch.device | str, augment: Augment | None = None) -> "DeviceImages":
        """Copy decoded arrays (also memory-mapped ones) to the device."""
        images = np.ascontiguousarray(np.moveaxis(np.asarray(arrays.images), 3, 1))
        labels = np.array(arrays.labels, dtype=np.int64)
        if not images.flags.writeable:  # one channel: the transposed view of a read-only map is contiguous already
            images = images.copy()
        return cls(
            torch.from_numpy(images).to(device),
            torch.from_numpy(labels).to(device),
            len(arrays.class_names),
            augment,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where images and labels live."""
        return self.images.device

    def subset(self, indices: Tensor | np.ndarray | Sequence[int]) -> "DeviceImages":
        """The images at `indices`, in that order, as a set of their own (a copy)."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def without_augmentation(self) -> "DeviceImages":
        """The same images as stored: for evaluation."""
        return replace(self, augment=None)

    def with_labels(self, labels: Tensor | np.ndarray | Sequence[int]) -> "DeviceImages":
        """The same images with other labels (N,)."""
        return replace(self, labels=torch.as_tensor(labels, dtype=torch.int64, device=self.device))

    def followed_by(self, other: "DeviceImages") -> "DeviceImages":
        """One set: these images, then the other's. Both must agree on classes and augmentation."""
        if (self.num_classes, self.augment) != (other.num_classes, other.augment):
            raise DataError("two image sets with different classes or augmentation cannot be joined")
        return replace(
            self,
            images=torch.cat([self.images, other.images]),
            labels=torch.cat([self.labels, other.labels]),
        )

    def batches(self, batch_size: int, generator: torch.Generator | None = None, shuffle: bool = True) -> "Batches":
        """One epoch of batches; the last one may be smaller.

        generator: CPU generator of order and augmentation; an unshuffled, unaugmented epoch needs
        none. Every process of a multi-GPU job draws the same batches; the training loop gives each
        process its share.
        """
        return Batches(self, batch_size, generator, shuffle)


class Batches(Iterator[Batch]):
    """Iterator over one epoch; `len()` counts its batches, `skip` passes over some unmade."""

    def __init__(self, data: DeviceImages, batch_size: int, generator: torch.Generator | None, shuffle: bool) -> None:
        augment = data.augment or Augment()
        if generator is None and (shuffle or augment.pad or augment.flip):
            raise ValueError("shuffled or augmented batches need a generator")
        num_images = len(data)
        self._data, self._batch_size, self._augment, self._position = data, batch_size, augment, 0
        # The draws depend on the number of images only, not on the batch size or device. `top` and
        # `left` are the corner of the crop in the padded image, 0 .. 2*pad inclusive as in
        # torchvision's RandomCrop.
        order = torch.randperm(num_images, generator=generator) if shuffle else torch.arange(num_images)
        self._order = order.to(data.device)
        self._corners = self._mirrored = None
        if augment.pad:
            corners = torch.randint(0, 2 * augment.pad + 1, (2, num_images), generator=generator)
            self._corners = corners.to(data.device)
        if augment.flip:
            self._mirrored = (torch.rand(num_images, generator=generator) < 0.5).to(data.device)

    def __len__(self) -> int:
        return -(-len(self._data) // self._batch_size)

    def skip(self, num_batches: int) -> None:
        """Continue after the next `num_batches` batches."""
        self._position += num_batches * self._batch_size

    def __next__(self) -> Batch:
        if self._position >= len(self._data):
            raise StopIteration
        rows = slice(self._position, self._position + self._batch_size)
        self._position += self._batch_size
        indices = self._order[rows]
        images = self._data.images[indices]
        if self._corners is not None:
            images = crop(images, self._augment.pad, self._corners[0, rows], self._corners[1, rows])
        if self._mirrored is not None:
            images = torch.where(self._mirrored[rows, None, None, None], images.flip(3), images)
        return Batch(as_float(images), self._data.labels[indices], indices)


def crop(images: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad images (B, C, H, W) with zeros; cut from image i the window H x W at top[i], left[i]."""
    height, width = images.shape[2:]
    # All windows at once as a view (B, C, 2*pad+1, 2*pad+1, H, W): one gather, without a loop over
    # images.
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def as_float(images: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]; floats unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
