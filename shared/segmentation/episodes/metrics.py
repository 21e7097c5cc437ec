"""Metrics of few-shot and of video segmentation."""

import math
from dataclasses import dataclass, field

import numpy as np

from shared.metrics.segmentation.iou import check_masks
from shared.segmentation.samples import Array

BOUNDARY_SHARE = 0.008  # of the image's diagonal: how far two outlines may lie apart in DAVIS


@dataclass
class ClassTotals:
    """Pixels of all episodes together, by class: the mean IoU of few-shot segmentation (Shaban et al., 2017; HSNet).

    counts: class -> intersection and union of the foregrounds, intersection and union of the backgrounds.
    """

    counts: dict[str, Array] = field(default_factory=dict)

    def add(self, name: str, found: Array, truth: Array, ignored: Array | None = None) -> None:
        """One episode. found, truth: (H, W) bool; ignored: (H, W) bool, pixels that count neither way."""
        check_masks(found, truth)
        counted = np.ones(truth.shape, bool) if ignored is None else ~ignored
        pairs = (found & truth, found | truth, ~(found | truth), ~(found & truth))
        pixels = np.array([np.count_nonzero(part & counted) for part in pairs], np.int64)
        self.counts[name] = self.counts.get(name, np.zeros(4, np.int64)) + pixels

    @property
    def iou(self) -> dict[str, float]:
        """IoU of each class over its episodes, in 0..1; 0 where neither a true nor a found pixel was."""
        return {name: float(common / max(either, 1)) for name, (common, either, _, _) in self.counts.items()}

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that had an episode; NaN without any."""
        return float(np.mean(list(self.iou.values()))) if self.counts else math.nan

    @property
    def fb_iou(self) -> float:
        """Mean of the foreground's and the background's IoU, of all classes together; NaN without episodes."""
        if not self.counts:
            return math.nan
        common, either, common_out, either_out = np.sum(list(self.counts.values()), axis=0)
        return float((common / max(either, 1) + common_out / max(either_out, 1)) / 2)


def region_similarity(found: Array, truth: Array) -> float:
    """J of DAVIS: IoU of two masks (H, W) bool; 1 where both are empty."""
    check_masks(found, truth)
    either = np.count_nonzero(found | truth)
    return float(np.count_nonzero(found & truth) / either) if either else 1.0


def boundary_accuracy(found: Array, truth: Array, share: float = BOUNDARY_SHARE) -> float:
    """F of DAVIS (Perazzi et al., CVPR 2016): harmonic mean of the precision and recall of the outline.

    found, truth: (H, W) bool. An outline's pixel is right if the other outline has one at most ceil(share * diagonal)
    pixels away. 1 where both outlines are empty, 0 where one is.
    """
    check_masks(found, truth)
    mine, true = outline(found), outline(truth)
    if not mine.any() or not true.any():
        return float(mine.any() == true.any())
    reach = math.ceil(share * math.hypot(*truth.shape))
    precision = np.count_nonzero(mine & _near(true, reach)) / np.count_nonzero(mine)
    recall = np.count_nonzero(true & _near(mine, reach)) / np.count_nonzero(true)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def outline(mask: Array) -> Array:
    """(H, W) bool: pixels that differ from the one to the right, below, or below to the right (DAVIS)."""
    # At the last row and column the neighbour is the pixel itself, so that the image's border is no outline.
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found = (mask ^ right) | (mask ^ below) | (mask ^ both)
    # The toolkit compares the last row only to the right, the last column only downwards, the corner with nothing.
    found[-1], found[:, -1] = (mask ^ right)[-1], (mask ^ below)[:, -1]
    found[-1, -1] = False
    return np.asarray(found)


def _near(mask: Array, reach: int) -> Array:
    """Pixels at most `reach` away (Euclidean) from one of the mask, which is not empty."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= reach)
