"""Prompts of promptable segmentation: boxes, points and coarse masks, drawn from true masks.

Points and boxes are (x, y) in pixels of the picture that the masks have; a pixel is addressed by its index
(SAM adds the half pixel itself). Masks are bool (N, H, W), one object each. Sources: HQ-SAM (arXiv:2306.01567)
and its released training code.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.errors import DataError
from shared.segmentation.resize import resize
from shared.segmentation.samples import FOREGROUND, Array

Kind = Literal["box", "points", "mask"]
KINDS: tuple[Kind, ...] = ("box", "points", "mask")


@dataclass(frozen=True)
class Prompt:
    """What one object is asked by; parts that are None are not given.

    box: (4,) x0, y0, x1, y1; points: (K, 2); point_labels: (K,) 1 object, 0 background, -1 no point; mask: (L, L) for
    SAM's mask input. All float32.
    """

    box: Array | None = None
    points: Array | None = None
    point_labels: Array | None = None
    mask: Array | None = None


def tight_boxes(masks: Array) -> Array:
    """(N, 4) float32 of x0, y0, x1, y1, the last index inclusive. Raises DataError for an empty mask."""
    _check(masks)
    sides = []
    for axis in (1, 2):
        occupied = np.asarray(masks.any(axis))
        first = occupied.argmax(1)
        last = occupied.shape[1] - 1 - occupied[:, ::-1].argmax(1)
        sides += [first, last]
    x0, x1, y0, y1 = sides
    return np.stack([x0, y0, x1, y1], 1).astype(np.float32)


def noisy_boxes(boxes: Array, scale: float, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """Boxes (N, 4) with centres moved by U(-1, 1) * side / 2 * scale and sides changed by U(-1, 1) * side * scale.

    scale: 0..1, 0 changes nothing; size: (height, width) of the picture, to which the corners are clipped.
    """
    if not 0 <= scale < 1:
        raise DataError(f"box noise {scale}, expected 0 <= noise < 1")
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    centres = centres + rng.uniform(-1, 1, sides.shape) * sides / 2 * scale
    sides = sides + rng.uniform(-1, 1, sides.shape) * sides * scale
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    height, width = size
    return np.clip(corners, 0, [width, height, width, height]).astype(np.float32)


def random_points(masks: Array, num: int, rng: np.random.Generator) -> Array:
    """(N, num, 2) float32: pixels of each mask, without replacement. Raises DataError for one with fewer than `num`."""
    _check(masks)
    points = np.empty((len(masks), num, 2), np.float32)
    for index, mask in enumerate(masks):
        pixels = np.flatnonzero(mask)
        if len(pixels) < num:
            raise DataError(f"mask {index} has {len(pixels)} pixels, {num} points were asked for")
        rows, columns = np.divmod(rng.choice(pixels, num, replace=False), mask.shape[1])
        points[index] = np.stack([columns, rows], 1)
    return points


def interior_points(masks: Array) -> Array:
    """(N, 2) float32: the pixel of each mask that is farthest from its outside (Euclidean; the first of equals).

    What lies beyond the picture is outside. Raises DataError for an empty mask.
    """
    from scipy.ndimage import distance_transform_edt

    points = []
    for mask, (x0, y0, x1, y1) in zip(masks, tight_boxes(masks).astype(int), strict=True):
        inside = np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1)
        row, column = np.unravel_index(distance_transform_edt(inside).argmax(), inside.shape)
        points.append((x0 + column - 1, y0 + row - 1))
    return np.array(points, np.float32).reshape(-1, 2)


def coarse_masks(labels: Array, rng: np.random.Generator, size: int = 256) -> Array:
    """Soft labels (N, H, W) in 0..255 as noisy mask prompts: (N, size, size) float32 of 0 or 255.

    Where a mask of `size` pixels differs by >= 0.01 from itself reduced eightfold, noise N(0, 1) is added before the
    threshold of 0.5. The values are 0 and 255, not logits, as HQ-SAM was trained.
    """
    if size % 8:
        raise DataError(f"mask prompts of {size} pixels, expected a multiple of 8")
    small = resize(labels, (size, size)) / np.float32(255)
    blurred = resize(resize(small, (size // 8, size // 8)), (size, size))
    unsure = np.abs(small - blurred) >= 0.01
    noise = rng.standard_normal(small.shape, np.float32)
    return np.where(small + noise * unsure > 0.5, np.float32(255), np.float32(0))


def training_prompts(
    labels: Array,
    rng: np.random.Generator,
    num_points: int = 10,
    mask_size: int = 256,
    kinds: tuple[Kind, ...] = KINDS,
) -> list[Prompt]:
    """One prompt an image, its kind uniform over `kinds`: the tight box, random object points, or a coarse mask.

    labels: (N, H, W) soft labels in 0..255. If an object of the batch has fewer than `num_points` pixels, no image of
    the batch gets points. Raises DataError for an image without object: draw its crop again.
    """
    masks = labels > FOREGROUND
    boxes = tight_boxes(masks)
    if (np.count_nonzero(masks, axis=(1, 2)) < num_points).any():
        kinds = tuple(kind for kind in kinds if kind != "points")
    if not kinds:
        raise DataError(f"an object has fewer than {num_points} pixels, and points are the only kind of prompt")
    prompts = []
    for index, choice in enumerate(rng.integers(0, len(kinds), len(labels))):
        kind, mask = kinds[choice], masks[index : index + 1]
        if kind == "box":
            prompts.append(Prompt(box=boxes[index]))
        elif kind == "points":
            points = random_points(mask, num_points, rng)[0]
            prompts.append(Prompt(points=points, point_labels=np.ones(num_points, np.float32)))
        else:
            prompts.append(Prompt(mask=coarse_masks(labels[index : index + 1], rng, mask_size)[0]))
    return prompts


def _check(masks: Array) -> None:
    if masks.dtype != bool or masks.ndim != 3:
        raise DataError(f"masks are {masks.dtype} {masks.shape}, expected bool (N, H, W)")
    empty = np.flatnonzero(~masks.any((1, 2)))
    if empty.size:
        raise DataError(f"mask {empty[0]} of {len(masks)} is empty: it has no box and no point")
