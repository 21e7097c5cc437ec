"""Bilinear resizing in numpy, equal to `torch.nn.functional.interpolate(align_corners=False)` without antialiasing.

A window of the result costs only that window: a picture enlarged twofold and cropped is never made whole.
"""

from typing import NamedTuple

import numpy as np

from shared.errors import DataError

Array = np.ndarray


class Window(NamedTuple):
    """Part of a resized picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(x: Array, size: tuple[int, int], window: Window | None = None, axis: int = -2) -> Array:
    """`x` with its spatial axes `axis` and `axis + 1` resized to size (height, width): float32, not rounded.

    axis 0 is for pictures (H, W, C), -2 for masks (..., H, W). window: return only this part of the result.
    """
    axis %= x.ndim
    window = window or Window(0, 0, *size)
    if min(x.shape[axis : axis + 2]) == 0 or min(size) < 1:
        raise DataError(f"cannot resize {x.shape} to {size[0]}x{size[1]}")
    rows = _interpolated(x, size[0], window.top, window.height, axis)
    return _interpolated(rows, size[1], window.left, window.width, axis + 1)


def resize_image(image: Array, size: tuple[int, int], window: Window | None = None) -> Array:
    """A picture (H, W, C) uint8 resized: uint8, fractions cut off as a cast does."""
    return resize(image, size, window, axis=0).astype(np.uint8)


def _interpolated(x: Array, size: int, start: int, length: int, axis: int) -> Array:
    before = x.shape[axis]
    if (size, start, length) == (before, 0, before):
        return x.astype(np.float32, copy=False)
    # Coordinates in float32, as torch has them: the cell may else differ at whole numbers.
    scale = np.float32(before) / np.float32(size)
    position = (np.arange(start, start + length, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    low = np.minimum(position.astype(np.int64), before - 1)
    high = np.minimum(low + 1, before - 1)
    weight = (position - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - axis - 1))
    lower = x.take(low, axis).astype(np.float32, copy=False)
    upper = x.take(high, axis).astype(np.float32, copy=False)
    return np.asarray(lower + weight * (upper - lower))
