"""Flip and large-scale jitter of an image with its soft mask (HQ-SAM, arXiv:2306.01567; Ghiasi et al., 2021).

One deviation: a crop without any pixel of the object (> 128) is drawn again. The released code keeps it, and its
box is then infinite.
"""

import numpy as np

from shared.errors import DataError
from shared.segmentation.resize import Window, resize, resize_image
from shared.segmentation.samples import FOREGROUND, Array

SCALES = (0.1, 2.0)
IMAGE_PADDING = 128  # before normalisation; SAM's predictor pads with zeros after it
_MOST_DRAWS = 100


def flip(image: Array, mask: Array, rng: np.random.Generator, probability: float = 0.5) -> tuple[Array, Array]:
    """Image (H, W, 3) and mask (H, W), both mirrored left to right with the given probability."""
    if rng.random() >= probability:
        return image, mask
    return image[:, ::-1], mask[:, ::-1]


def large_scale_jitter(
    image: Array, mask: Array, rng: np.random.Generator, size: int = 1024, scales: tuple[float, float] = SCALES
) -> tuple[Array, Array]:
    """Image (H, W, 3) uint8 and mask (H, W) uint8 at a random scale and place: (size, size, 3) uint8 and (size, size)
    float32 in 0..255, which is not made binary again.

    The longer side becomes round(size * s), s uniform in `scales`; of a longer picture a random window of
    `size` pixels is taken, a shorter one is padded at the right and bottom. Raises DataError for a mask without
    a pixel > 128; after 100 windows without object the whole picture at s = 1 is taken.
    """
    if not (mask > FOREGROUND).any():
        raise DataError(f"a mask {mask.shape} without object (no value > {FOREGROUND}) cannot be used for training")
    for _ in range(_MOST_DRAWS):
        full, window = draw_window(mask.shape, rng, size, scales)
        label = resize(mask, full, window)
        if (label > FOREGROUND).any():
            return _padded(image, label, full, window, size)
    full, window = draw_window(mask.shape, rng, size, (1.0, 1.0))
    label = resize(mask, full, window)
    if not (label > FOREGROUND).any():
        raise DataError(f"an object of {(mask > FOREGROUND).sum()} pixels in {mask.shape} vanishes at {size} pixels")
    return _padded(image, label, full, window, size)


def draw_window(
    shape: tuple[int, ...], rng: np.random.Generator, size: int, scales: tuple[float, float]
) -> tuple[tuple[int, int], Window]:
    """Size (height, width) of the scaled picture, and the window of it that is kept."""
    factor = size * rng.uniform(*scales) / max(shape)
    height, width = (max(1, round(side * factor)) for side in shape)
    top, left = (int(rng.integers(0, max(0, side - size) + 1)) for side in (height, width))
    return (height, width), Window(top, left, min(height, size), min(width, size))


def _padded(image: Array, label: Array, full: tuple[int, int], window: Window, size: int) -> tuple[Array, Array]:
    picture = np.full((size, size, image.shape[2]), IMAGE_PADDING, np.uint8)
    picture[: window.height, : window.width] = resize_image(image, full, window)
    mask = np.zeros((size, size), np.float32)
    mask[: window.height, : window.width] = label
    return picture, mask
