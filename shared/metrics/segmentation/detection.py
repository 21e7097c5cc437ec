"""Detection and classification of points: precision, recall and F1 within a radius.

Counts add up over images first (`sum(counts, Counts())`), then they become rates.
"""

from dataclasses import dataclass

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.iou import Array

RADIUS = 12.0  # pixels; about half a nucleus at 40x (6 at 20x)


@dataclass(frozen=True)
class Counts:
    """Hits, false alarms and misses. Rates are in 0..1, NaN where nothing defines them."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN without predictions."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN without truth."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN with neither truth nor predictions."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def match_points(predicted: Array, scores: Array, truth: Array, radius: float = RADIUS) -> Array:
    """Index of the true point that each prediction hits, or -1: (P,).

    predicted: (P, 2), truth: (G, 2), in pixels; scores: (P,). In falling score (equals in their order)
    each prediction takes the nearest free true point, if it is within `radius` (inclusive).
    """
    from scipy.spatial import KDTree

    predicted, truth = _points(predicted, "predicted"), _points(truth, "true")
    if len(scores) != len(predicted):
        raise DataError(f"{len(predicted)} predicted points and {len(scores)} scores, expected one a point")
    taken = np.full(len(predicted), -1)
    if not len(predicted) or not len(truth):
        return taken
    near = KDTree(truth).query_ball_point(predicted, radius, return_sorted=True)
    free = np.ones(len(truth), bool)
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        candidates = np.array([g for g in near[index] if free[g]], int)
        if candidates.size:
            distances = ((truth[candidates] - predicted[index]) ** 2).sum(1)
            taken[index] = candidates[distances.argmin()]
            free[taken[index]] = False
    return taken


def detection_counts(predicted: Array, scores: Array, truth: Array, radius: float = RADIUS) -> Counts:
    """Counts of one image; arguments as in `match_points`."""
    hits = int((match_points(predicted, scores, truth, radius) >= 0).sum())
    return Counts(hits, len(predicted) - hits, len(truth) - hits)


def class_counts(
    predicted: Array,
    scores: Array,
    predicted_classes: Array,
    truth: Array,
    truth_classes: Array,
    num_classes: int,
    radius: float = RADIUS,
) -> list[Counts]:
    """Counts of one image a class 0..num_classes-1: points are matched within their class only."""
    counts = []
    for number in range(num_classes):
        mine, theirs = predicted_classes == number, truth_classes == number
        counts.append(detection_counts(predicted[mine], scores[mine], truth[theirs], radius))
    return counts


def mean_class_f1(counts: list[Counts]) -> float:
    """Mean F1 over the classes that occur in truth or predictions; NaN if none does."""
    values = [c.f1 for c in counts if c.tp + c.fp + c.fn]
    return float(np.mean(values)) if values else float("nan")


def _points(points: Array, name: str) -> Array:
    points = np.asarray(points, np.float64)
    if points.size == 0:
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"{name} points are {points.shape}, expected (N, 2)")
    return points
