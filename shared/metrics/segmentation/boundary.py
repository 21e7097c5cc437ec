"""Boundary IoU (Cheng et al., CVPR 2021, arXiv:2103.16562): IoU of the pixels near both contours.

The boundary of a mask are its pixels within `distance` (chessboard) of the outside; what lies beyond
the picture is outside. This equals mask minus its erosion by a 3x3 square, `distance` times, on a mask
padded with zeros.

Masks are packed, 64 pixels of a row a word, and eroded there: one erosion of a 1024x1024 mask is
a few dozen operations on 16,384 words, and a whole batch is one array.
"""

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.iou import Array, check_masks, ratio

RATIO = 0.02
_WORD = np.dtype("<u8")  # with little bit order: pixel j of a row is bit j % 64 of word j // 64


def boundary_distance(height: int, width: int, share: float = RATIO) -> int:
    """Pixels of the boundary's width: `share` of the picture's diagonal, rounded, at least 1."""
    return max(1, round(share * float(np.hypot(height, width))))


def boundary(masks: Array, distance: int) -> Array:
    """Boundary pixels of bool masks (..., H, W): same shape, bool."""
    if masks.dtype != bool or masks.ndim < 2:
        raise DataError(f"masks are {masks.dtype} {masks.shape}, expected bool (..., H, W)")
    rim = _packed_boundary(masks, distance).view(np.uint8)
    return np.unpackbits(rim, axis=-1, count=masks.shape[-1], bitorder="little").view(bool)


def boundary_iou(predicted: Array, truth: Array, share: float = RATIO) -> Array:
    """IoU of the boundaries of bool masks (..., H, W): shape (...), in 0..1; NaN where both are empty."""
    check_masks(predicted, truth)
    height, width = truth.shape[-2:]
    distance = boundary_distance(height, width, share)
    p, g = _packed_boundary(predicted, distance), _packed_boundary(truth, distance)
    return ratio(_count(p & g), _count(p | g))


def shares_above(values: Array, thresholds: Array) -> Array:
    """Share of images whose value is > each threshold (HQ-SAM, arXiv:2306.01567, figure 4): (T,) in 0..1.

    values: (N,) IoU or boundary IoU; undefined ones (NaN) are left out. NaN without any defined value.
    """
    values = np.asarray(values, np.float64).ravel()
    defined = values[~np.isnan(values)]
    above = defined[:, None] > np.asarray(thresholds, np.float64)[None]
    return ratio(above.sum(0), np.full(above.shape[1], len(defined)))


def _packed_boundary(masks: Array, distance: int) -> Array:
    """Boundary of bool masks (..., H, W) as words (..., H, ceil(W / 64))."""
    height, width = masks.shape[-2:]
    packed = np.zeros((*masks.shape[:-1], -(-width // 64) * 8), np.uint8)
    packed[..., : -(-width // 8)] = np.packbits(masks, axis=-1, bitorder="little")
    rim = packed.view(_WORD)
    length = 2 * distance + 1
    if height >= length and width >= length:
        # Window i holds pixels i .. i + length - 1, so it decides over pixel i + distance.
        inner = _shifted(_row_windows(_column_windows(rim, length), length), -distance)
        rim[..., distance : height - distance, :] &= ~inner
    return rim


def _column_windows(words: Array, length: int) -> Array:
    """AND over every run of `length` rows: (..., H - length + 1, W'). Runs grow by doubling."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        words = words[..., : words.shape[-2] - step, :] & words[..., step:, :]
        covered += step
    return words


def _row_windows(words: Array, length: int) -> Array:
    """AND over every run of `length` pixels of a row, by its first pixel; beyond the end is 0."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        words = words & _shifted(words, step)
        covered += step
    return words


def _shifted(words: Array, step: int) -> Array:
    """Rows moved by `step` pixels: pixel j of the result is pixel j + step, 0 beyond either end."""
    whole, part = divmod(step, 64)
    width = words.shape[-1]
    out = np.zeros_like(words)
    for skip, bits in ((whole, part), (whole + 1, part - 64)):
        # Shifts by 64 bits or more give 0 in numpy, so `part` 0 takes nothing of the next word.
        source = words[..., max(0, skip) : max(0, width + min(0, skip))]
        moved = source >> _WORD.type(bits) if bits >= 0 else source << _WORD.type(-bits)
        start = max(0, -skip)
        out[..., start : start + moved.shape[-1]] |= moved
    return out


def _count(words: Array) -> Array:
    return np.bitwise_count(words).sum((-2, -1), dtype=np.int64)
