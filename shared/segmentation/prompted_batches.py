"""Batches for tuning a promptable model: pictures with one object each, and one prompt of a random kind for each."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from shared.errors import DataError
from shared.segmentation.jitter import flip, large_scale_jitter
from shared.segmentation.prompts import KINDS, Kind, Prompt, training_prompts
from shared.segmentation.resize import resize, resize_image
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import FOREGROUND, Array, Source
from shared.segmentation.steps import Step


class Pictures(Protocol):
    """Images (S, S, 3) uint8 with soft masks (S, S) float32 in 0..255, in which an object is seen."""

    def __len__(self) -> int: ...

    def picture(self, position: int, rng: np.random.Generator) -> tuple[Array | None, Array]:
        """Image, None if the model has its embedding already, and mask. What is random comes from `rng`."""


@dataclass(frozen=True)
class ReadPictures:
    """A source's pictures at `size` pixels a side, read when asked for.

    jitter: mirrored with probability 1/2, then at a random scale and place; else resized, aspect not kept.
    """

    source: Source
    size: int
    jitter: bool

    def __len__(self) -> int:
        return len(self.source)

    def picture(self, position: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Image and mask of one sample. Raises DataError for a sample without a soft mask or without an object."""
        sample = self.source[position]
        mask, size = sample.truth, (self.size, self.size)
        if not isinstance(mask, np.ndarray):
            raise DataError(f"{sample.name}: has several objects, this training takes one soft mask (`per_instance`)")
        if not (mask > FOREGROUND).any():
            raise DataError(f"{sample.name}: its mask is empty; leave this image out of the training set")
        if self.jitter:
            return large_scale_jitter(*flip(sample.image, mask, rng), rng, self.size)
        mask = resize(mask, size)
        if not (mask > FOREGROUND).any():
            raise DataError(f"{sample.name}: its object vanishes at {self.size} pixels; leave this image out")
        return resize_image(sample.image, size), mask


@dataclass(frozen=True)
class HeldMasks:
    """Only the masks (N, S, S) of pictures whose embeddings are kept."""

    masks: Array

    def __len__(self) -> int:
        return len(self.masks)

    def picture(self, position: int, rng: np.random.Generator) -> tuple[None, Array]:
        """No image, and the mask."""
        return None, self.masks[position]


class PromptedBatch(NamedTuple):
    """B objects of B pictures.

    positions: (B,) in the data. images: (B, 3, S, S) uint8, or None if embeddings are kept. labels: (B, S, S) float32
    in 0..255. kinds: (B,) index into `KINDS`; boxes (B, 4), points (B, P, 2) and masks (B, 1, L, L) are zeros where the
    prompt is of another kind. seed: of what the loss draws.
    """

    positions: Tensor
    images: Tensor | None
    labels: Tensor
    kinds: Tensor
    boxes: Tensor
    points: Tensor
    masks: Tensor
    seed: int

    def prompts(self) -> tuple[list[Prompts], Tensor]:
        """A group for each kind, and the picture (B,) of each prompt in their order."""
        groups = []
        for number, kind in enumerate(KINDS):
            image = (self.kinds == number).nonzero()[:, 0]
            if len(image) and kind == "box":
                groups.append(Prompts(image, boxes=self.boxes[image]))
            elif len(image) and kind == "points":
                points = self.points[image]
                groups.append(Prompts(image, points, points.new_ones(points.shape[:2])))
            elif len(image):
                groups.append(Prompts(image, masks=self.masks[image]))
        return groups, torch.cat([group.image for group in groups])


@dataclass(frozen=True)
class PromptedBatchMaker:
    """Makes the batch of a step. low_res: pixels a side of a mask prompt; kinds, num_points: see `training_prompts`."""

    pictures: Pictures
    low_res: int
    kinds: tuple[Kind, ...] = KINDS
    num_points: int = 10

    def __call__(self, step: Step) -> PromptedBatch:
        pairs = [self.pictures.picture(int(position), step.rng) for position in step.positions]
        labels = np.stack([mask for _, mask in pairs])
        prompts = training_prompts(labels, step.rng, self.num_points, self.low_res, self.kinds)
        images = [image.transpose(2, 0, 1) for image, _ in pairs if image is not None]
        size = self.low_res
        return PromptedBatch(
            torch.from_numpy(step.positions),
            torch.from_numpy(np.stack(images)) if images else None,
            torch.from_numpy(labels),
            torch.tensor([KINDS.index(_kind(prompt)) for prompt in prompts]),
            _filled([prompt.box for prompt in prompts], (4,)),
            _filled([prompt.points for prompt in prompts], (self.num_points, 2)),
            _filled([prompt.mask for prompt in prompts], (size, size))[:, None],
            int(step.rng.integers(2**62)),
        )


def _kind(prompt: Prompt) -> Kind:
    if prompt.box is not None:
        return "box"
    return "mask" if prompt.points is None else "points"


def _filled(values: list[Array | None], shape: tuple[int, ...]) -> Tensor:
    rows = np.zeros((len(values), *shape), np.float32)
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            row[...] = value
    return torch.from_numpy(rows)
