"""Intersection over union of masks, and what the mask metrics check of their input."""

from typing import Any

import numpy as np

from shared.errors import DataError

Array = np.ndarray


def iou(predicted: Array, truth: Array) -> Array:
    """|P & G| / |P or G| of bool masks (..., H, W): shape (...), in 0..1; NaN where both are empty.

    A single pair of (H, W) gives a 0-d array. Raises DataError for other types or two shapes.
    """
    check_masks(predicted, truth)
    common, either = (np.count_nonzero(part, axis=(-2, -1)) for part in (predicted & truth, predicted | truth))
    return ratio(common, either)


def ratio(numerator: Any, denominator: Any) -> Array:
    """Quotient of counts; NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64))


def check_masks(predicted: Array, truth: Array) -> None:
    """Raises DataError unless both are bool masks of one shape with at least two axes."""
    for name, masks in (("predicted", predicted), ("true", truth)):
        if masks.dtype != bool:
            raise DataError(f"{name} masks are {masks.dtype}, expected bool: compare with the threshold first")
    if predicted.shape != truth.shape or predicted.ndim < 2:
        shapes = f"predicted masks are {predicted.shape}, true masks {truth.shape}"
        raise DataError(f"{shapes}, expected one shape (..., H, W)")
