"""Prompts that an evaluation gives, from true masks as a model sees them (HQ-SAM, arXiv:2306.01567)."""

from collections.abc import Sequence

import numpy as np

from shared.segmentation.evaluate.spec import PromptSpec
from shared.segmentation.prompts import Prompt, interior_points, noisy_boxes, random_points, tight_boxes
from shared.segmentation.resize import resize
from shared.segmentation.samples import FOREGROUND, Array, Objects, Sample

_NO_POINT = -1


def soft_objects(sample: Sample) -> list[Array]:
    """Soft masks (H, W) uint8 in 0..255 of the objects to find: those with a pixel > 128 that are no crowd."""
    if isinstance(sample.truth, np.ndarray):
        return [sample.truth] if (sample.truth > FOREGROUND).any() else []
    masks = sample.masks[~sample.truth.crowd] if isinstance(sample.truth, Objects) else sample.masks
    return [mask.astype(np.uint8) * np.uint8(255) for mask in masks if mask.any()]


def seen(soft: Array, size: tuple[int, int]) -> Array:
    """A soft mask (H, W) as bool (h, w) of the model's input: resized bilinearly, then > 128; never empty.

    An object so thin that nothing of it is left keeps the pixels that its own fall on.
    """
    mask = np.asarray(resize(soft, size) > FOREGROUND)
    if not mask.any():
        rows, columns = np.nonzero(soft > FOREGROUND)
        mask[rows * size[0] // soft.shape[0], columns * size[1] // soft.shape[1]] = True
    return mask


def drawn_prompts(masks: Sequence[Array], spec: PromptSpec, rng: np.random.Generator) -> list[Prompt]:
    """One prompt for each mask (h, w) bool, in its pixels.

    An object with fewer pixels than points are asked for repeats them; where an object leaves no background, its
    negative points are labelled -1, no point.
    """
    if spec.kind == "box":
        boxes = np.concatenate([tight_boxes(mask[None]) for mask in masks]) if masks else np.zeros((0, 4), np.float32)
        if spec.noise and masks:
            boxes = noisy_boxes(boxes, spec.noise, (masks[0].shape[0], masks[0].shape[1]), rng)
        return [Prompt(box=box) for box in boxes]
    return [_points(mask, spec, rng) for mask in masks]


def _points(mask: Array, spec: PromptSpec, rng: np.random.Generator) -> Prompt:
    if spec.kind == "interior_point":
        return Prompt(points=interior_points(mask[None]), point_labels=np.ones(1, np.float32))
    assert spec.num is not None
    points, labels = _random(mask, spec.num, rng), np.ones(spec.num, np.float32)
    if spec.negatives:
        outside = ~mask
        some = outside.any()
        more = _random(outside, spec.negatives, rng) if some else np.zeros((spec.negatives, 2), np.float32)
        points = np.concatenate([points, more])
        labels = np.concatenate([labels, np.full(spec.negatives, 0 if some else _NO_POINT, np.float32)])
    return Prompt(points=points, point_labels=labels)


def _random(mask: Array, num: int, rng: np.random.Generator) -> Array:
    """(num, 2) float32 pixels of a mask, repeated if it has fewer."""
    points = random_points(mask[None], min(num, int(np.count_nonzero(mask))), rng)[0]
    return np.asarray(np.resize(points, (num, 2)))
