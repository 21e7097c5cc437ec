"""Windows of a large image, the prompts in them, and the masks that they may keep."""

import numpy as np
import torch
from segment_anything.utils.amg import is_box_near_crop_edge

from shared.errors import DataError
from shared.segmentation.resize import Window
from shared.segmentation.samples import Array


def windows(height: int, width: int, size: int, overlap: int) -> list[Window]:
    """Windows of at most size x size that cover an image, row by row; neighbours share `overlap` pixels.

    The last one of a row or column ends with the image, and shares more.
    """
    if overlap >= size:
        raise DataError(f"windows of {size} pixels cannot overlap by {overlap}")
    return [
        Window(top, left, min(size, height), min(size, width))
        for top in _starts(height, size, size - overlap)
        for left in _starts(width, size, size - overlap)
    ]


def _starts(length: int, size: int, stride: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def inside(points: Array, window: Window, shape: tuple[int, int]) -> Array:
    """Indices of the points (N, 2) as x, y that lie in a window of an image of `shape`.

    A window keeps points up to its last pixel; at the image's sides also those beyond, so that none is lost.
    """
    chosen = np.ones(len(points), bool)
    for axis, (start, length, end) in enumerate(
        [(window.left, window.width, shape[1]), (window.top, window.height, shape[0])]
    ):
        stop = start + length
        if start > 0:
            chosen &= points[:, axis] >= start
        if stop < end:
            chosen &= points[:, axis] < stop
    return np.flatnonzero(chosen)


def cut_off(boxes: torch.Tensor, window: Window, shape: tuple[int, int], margin: int | None) -> torch.Tensor:
    """(N,) bool: masks that a neighbouring window is expected to hold whole (SAM's crop-edge rule).

    boxes: (N, 4) as x0, y0, x1, y1 in pixels of the window. A side of the box within `margin` pixels of the window's
    counts, unless it is as near to the image's. margin None: none.
    """
    if margin is None:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    height, width = shape
    window_box = [window.left, window.top, window.left + window.width, window.top + window.height]
    return is_box_near_crop_edge(boxes, window_box, [0, 0, width, height], atol=float(margin))
