"""Training batches: augmented crops with label maps, and prompts for some of their nuclei."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from papers.promptnucseg.segmentor.options import SegmentorTraining
from shared.errors import DataError
from shared.segmentation.augment.batches import AugmentedBatches
from shared.segmentation.augment.compose import augmentation
from shared.segmentation.nucleus_prompts import NucleusPrompts, nucleus_prompts
from shared.segmentation.samples import Array, Instances, Source, instances_of


class Crop(NamedTuple):
    """image: (H, W, 3) uint8; labels: (H, W) int32, ids 1..n; prompts for up to Z of them."""

    image: Array
    labels: Array
    prompts: NucleusPrompts


class Crops(NamedTuple):
    """B crops with up to Z targets each, on the CPU.

    images: (B, 3, H, W) uint8. labels: (B, H, W) int32. ids: (B, Z) int64, the target's id in the label map, 0 where
    there is no further target. points: (B, Z, 1 + K, 2) float32 as x, y; point_labels: (B, Z, 1 + K) float32.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    points: Tensor
    point_labels: Tensor


def epoch_batches(
    source: Source, options: SegmentorTraining, side: int, generator: torch.Generator, threads: int = 1
) -> AugmentedBatches[Crop, Crops]:
    """One shuffled epoch of crops of at most `side` pixels."""
    augment = augmentation(options.augment)

    def make(index: int, rng: np.random.Generator) -> Crop:
        sample = source[index]
        if not isinstance(sample.truth, Instances):
            raise DataError(f"{sample.name}: the segmentor learns from label maps, this sample has none")
        view = augment(sample.image, sample.truth.labels, None, rng)
        assert view.labels is not None
        if max(view.size) > side:
            found = f"a crop of {view.size[1]}x{view.size[0]} pixels, but the model takes {side}"
            raise DataError(f"{sample.name}: {found}; add {{kind: random_crop, size: {side}}} to the augmentation")
        instances = instances_of(view.labels)
        prompts = nucleus_prompts(instances, rng, options.max_targets, options.num_negatives)
        return Crop(view.image, instances.labels, prompts)

    return AugmentedBatches(len(source), options.batch, make, together, generator, threads)


def together(crops: Sequence[Crop]) -> Crops:
    """A batch; targets are filled up to the number of the crop with the most, at least one."""
    sizes = sorted({crop.labels.shape for crop in crops})
    if len(sizes) > 1:
        (h0, w0), (h1, w1) = sizes[:2]
        raise DataError(f"crops of {w0}x{h0} and {w1}x{h1} in one batch; add {{kind: random_crop}} to the augmentation")
    slots = max(1, *(len(crop.prompts.ids) for crop in crops))
    filled = [[_filled(value, slots) for value in crop.prompts] for crop in crops]
    images = torch.from_numpy(np.stack([crop.image for crop in crops])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([crop.labels for crop in crops]))
    return Crops(images, labels, *(torch.from_numpy(np.stack(column)) for column in zip(*filled, strict=True)))


def _filled(value: Array, slots: int) -> Array:
    return np.concatenate([value, np.zeros((slots - len(value), *value.shape[1:]), value.dtype)])
