"""PanNuke's panoptic quality (Gamper et al., arXiv:2003.10778): bPQ, mPQ, and PQ of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.instances import overlaps, panoptic_quality
from shared.metrics.segmentation.iou import Array


@dataclass(frozen=True)
class PanNukeQuality:
    """bpq, mpq: mean over tissues; per_class: (C,); tissues: tissue -> (bPQ, mPQ). All in 0..1."""

    bpq: float
    mpq: float
    per_class: Array
    tissues: dict[str, tuple[float, float]]


def binary_pq(truth: Array, predicted: Array) -> float:
    """Class-agnostic PQ of one image's label maps (H, W); NaN without a true nucleus."""
    return panoptic_quality(overlaps(truth, predicted)).pq


def class_pq(truth: Array, predicted: Array) -> Array:
    """PQ of each class of one image: (C,). truth, predicted: (C, H, W), a label map a class.

    NaN for a class without a true nucleus: false positives of absent classes are free. Classes have planes
    of their own, so that predictions of two classes may overlap.
    """
    if len(truth) != len(predicted):
        raise DataError(f"{len(truth)} true and {len(predicted)} predicted class planes, expected equally many")
    return np.array([binary_pq(t, p) for t, p in zip(truth, predicted, strict=True)])


def pannuke_quality(binary: Array, per_class: Array, tissues: Sequence[str]) -> PanNukeQuality:
    """Averages over images, then over tissues. binary: (N,) of `binary_pq`; per_class: (N, C) of `class_pq`.

    mPQ of an image is the mean over its defined classes, PQ of a class the mean over all images that define
    it. A tissue without any defined image is NaN in `tissues` and left out of the mean over tissues.
    """
    if not len(binary) == len(per_class) == len(tissues):
        raise DataError(
            f"{len(binary)} bPQ, {len(per_class)} class PQ and {len(tissues)} tissues, expected one an image"
        )
    multi = _mean_of_defined(per_class, axis=1)
    names = np.asarray(tissues, dtype=str)
    values = {
        str(name): (float(_mean_of_defined(binary[names == name])), float(_mean_of_defined(multi[names == name])))
        for name in np.unique(names)
    }
    means = _mean_of_defined(np.array(list(values.values())).reshape(-1, 2), axis=0)
    return PanNukeQuality(float(means[0]), float(means[1]), _mean_of_defined(per_class, axis=0), values)


def _mean_of_defined(values: Array, axis: int = 0) -> Array:
    """`nanmean` without its warning for slices that are NaN altogether, which stay NaN."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0).sum(axis) / defined.sum(axis))
