"""Augmentation of an image with its boxes and masks: mirror, several scales with a crop, large-scale jitter."""

import numpy as np

from shared.detection.examples import Example
from shared.detection.options import Augmentation, MultiScale, NoAugment, ScaleJitter
from shared.detection.resizing import padded, resized, short_side
from shared.segmentation.jitter import draw_window
from shared.segmentation.resize import Window


def augment(example: Example, options: Augmentation, rng: np.random.Generator) -> Example:
    """One draw of an augmentation. An image may come back without objects."""
    if isinstance(options, NoAugment):
        return random_flip(example, options.flip, rng)
    if isinstance(options, MultiScale):
        return multi_scale(random_flip(example, options.flip, rng), options, rng)
    return random_flip(scale_jitter(example, options, rng), options.flip, rng)


def random_flip(example: Example, probability: float, rng: np.random.Generator) -> Example:
    """The example, mirrored left to right with the given probability."""
    return flip(example) if rng.random() < probability else example


def flip(example: Example) -> Example:
    """The example mirrored left to right."""
    width = example.image.shape[1]
    boxes = example.boxes.copy()
    boxes[:, [0, 2]] = width - example.boxes[:, [2, 0]]
    return Example(example.image[:, ::-1], boxes, example.classes, example.masks[:, :, ::-1])


def multi_scale(example: Example, options: MultiScale, rng: np.random.Generator) -> Example:
    """The shorter side becomes one of several; before that, with probability `crop`, a window at another scale."""
    if rng.random() < options.crop:
        size = _short_side(example, rng, options.crop_shorts)
        window = random_window(size, options.crop_sides, rng)
        example = resized(example, size, window, options.recompute_boxes)
    size = _short_side(example, rng, options.shorts, options.longest)
    return resized(example, size, recompute=options.recompute_boxes)


def _short_side(
    example: Example, rng: np.random.Generator, shorts: list[int], longest: int | None = None
) -> tuple[int, int]:
    height, width = example.image.shape[:2]
    return short_side(height, width, int(rng.choice(shorts)), longest)


def random_window(size: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator) -> Window:
    """A window at a uniform place in a picture of `size`, each side uniform in `sides`, at most the picture's own."""
    low, high = sides
    height, width = (int(rng.integers(min(side, low), min(side, high) + 1)) for side in size)
    top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    return Window(top, left, height, width)


def scale_jitter(example: Example, options: ScaleJitter, rng: np.random.Generator) -> Example:
    """Large-scale jitter: (size, size) pixels of the picture at a random scale and place, grey where it ends."""
    height, width = example.image.shape[:2]
    full, window = draw_window((height, width), rng, options.size, options.scales)
    return padded(resized(example, full, window, options.recompute_boxes), options.size)
