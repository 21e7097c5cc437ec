"""Instance metrics of label maps: AJI, AJI+, PQ, Dice. All follow from one table of overlaps.

table = overlaps(truth, predicted)
aji(table), panoptic_quality(table).pq

A label map (H, W) holds 0 for background and one positive id an instance. Ids need not be
consecutive, and background need not occur. One id is one instance even if it is in several pieces.
Truth without instances: every metric is NaN. Truth, but nothing predicted: every metric is 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.iou import Array

_DENSE = 1 << 22  # cells of a count table (32 MB) up to which counting beats sorting


@dataclass(frozen=True)
class Overlaps:
    """Areas in pixels of T true and P predicted instances, and their K overlapping pairs.

    truth_areas: (T,), predicted_areas: (P,); truth, predicted: (K,) indices into them, sorted by truth,
    then predicted; pixels: (K,) size of the intersections.
    """

    truth_areas: Array
    predicted_areas: Array
    truth: Array
    predicted: Array
    pixels: Array

    @cached_property
    def unions(self) -> Array:
        """(K,) size of each pair's union."""
        return self.truth_areas[self.truth] + self.predicted_areas[self.predicted] - self.pixels

    @cached_property
    def iou(self) -> Array:
        """(K,) IoU of each pair, in (0, 1]."""
        return self.pixels / self.unions

    @property
    def is_undefined(self) -> bool:
        """Whether there is no true instance."""
        return len(self.truth_areas) == 0


@dataclass(frozen=True)
class PanopticQuality:
    """Detection quality, segmentation quality, and their product (Kirillov et al., arXiv:1801.00868)."""

    dq: float
    sq: float
    pq: float


def overlaps(truth: Array, predicted: Array) -> Overlaps:
    """Overlaps of two label maps (H, W) of integers >= 0. Raises DataError for anything else."""
    _check(truth, predicted)
    width = int(predicted.max(initial=0)) + 1
    num_cells = (int(truth.max(initial=0)) + 1) * width
    codes = truth.ravel().astype(np.int64) * width + predicted.ravel()
    if num_cells <= max(_DENSE, codes.size):
        counts = np.bincount(codes, minlength=num_cells)
        cells = np.flatnonzero(counts)
        pixels = counts[cells]
    else:
        cells, pixels = np.unique(codes, return_counts=True)
    rows, columns = np.divmod(cells, width)
    truth_areas, truth_index = _areas(rows, pixels)
    predicted_areas, predicted_index = _areas(columns, pixels)
    both = (rows > 0) & (columns > 0)
    return Overlaps(truth_areas, predicted_areas, truth_index[both], predicted_index[both], pixels[both])


def _check(truth: Array, predicted: Array) -> None:
    for name, labels in (("true", truth), ("predicted", predicted)):
        if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 2:
            raise DataError(f"{name} label map: {labels.dtype} {labels.shape}, expected integers (H, W)")
        if labels.size and labels.min() < 0:
            raise DataError(f"{name} label map: id {labels.min()}, expected ids >= 0")
    if truth.shape != predicted.shape:
        raise DataError(f"true label map is {truth.shape}, predicted one {predicted.shape}, expected one shape")


def _areas(ids: Array, pixels: Array) -> tuple[Array, Array]:
    """Areas of the ids > 0 in rising order of id, and each entry's index into them (-1 for background)."""
    known, index = np.unique(ids, return_inverse=True)
    areas = np.bincount(index, weights=pixels, minlength=len(known)).astype(np.int64)
    # Without a background pixel there is no id 0 to leave out.
    background = int(len(known) > 0 and known[0] == 0)
    return areas[background:], index - background


def aji(table: Overlaps) -> float:
    """Aggregated Jaccard index (Kumar et al., TMI 2017).

    Each true instance takes the prediction of highest IoU (the first of equals); a prediction may be taken
    more than once. Sum of intersections / (sum of unions + true instances without overlap + predictions
    never taken).
    """
    if table.is_undefined:
        return float("nan")
    order = np.lexsort((table.predicted, -table.iou, table.truth))
    _, first = np.unique(table.truth[order], return_index=True)
    return _jaccard(table, order[first])


def aji_plus(table: Overlaps) -> float:
    """AJI with one-to-one pairs that maximise the sum of IoU (HoVer-Net, Graham et al., 2019)."""
    from scipy.optimize import linear_sum_assignment

    if table.is_undefined:
        return float("nan")
    pair_of = np.full((len(table.truth_areas), len(table.predicted_areas)), -1)
    pair_of[table.truth, table.predicted] = np.arange(len(table.pixels))
    gains = np.zeros(pair_of.shape)
    gains[table.truth, table.predicted] = table.iou
    pairs = pair_of[linear_sum_assignment(gains, maximize=True)]
    return _jaccard(table, pairs[pairs >= 0])


def _jaccard(table: Overlaps, pairs: Array) -> float:
    free_truth = np.delete(table.truth_areas, np.unique(table.truth[pairs])).sum()
    free_predicted = np.delete(table.predicted_areas, np.unique(table.predicted[pairs])).sum()
    union = table.unions[pairs].sum() + free_truth + free_predicted
    return float(table.pixels[pairs].sum() / union)


def panoptic_quality(table: Overlaps) -> PanopticQuality:
    """Pairs of IoU > 0.5 are hits (strict, hence one-to-one). DQ = TP / (TP + FP/2 + FN/2),
    SQ = sum of the hits' IoU / (TP + 1e-6), as the nucleus benchmarks compute it.
    """
    if table.is_undefined:
        return PanopticQuality(float("nan"), float("nan"), float("nan"))
    hits = table.iou[table.iou > 0.5]
    dq = len(hits) / ((len(table.truth_areas) + len(table.predicted_areas)) / 2)
    sq = float(hits.sum()) / (len(hits) + 1e-6)
    return PanopticQuality(dq, sq, dq * sq)


def dice(table: Overlaps) -> float:
    """Dice of the foregrounds, 2 |A & B| / (|A| + |B|), known as dice_1."""
    if table.is_undefined:
        return float("nan")
    return float(2 * table.pixels.sum() / (table.truth_areas.sum() + table.predicted_areas.sum()))


def ensemble_dice(table: Overlaps) -> float:
    """Intersections and sizes summed over all overlapping pairs (dice_2): an instance counts once a partner."""
    if table.is_undefined:
        return float("nan")
    if not len(table.pixels):
        return 0.0
    sizes = table.truth_areas[table.truth] + table.predicted_areas[table.predicted]
    return float(2 * table.pixels.sum() / sizes.sum())
