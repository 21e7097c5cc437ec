"""What a method of the segmentation track returns, and an evaluation asks."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.segmentation.sam.model import SamModel
from shared.segmentation.samples import Array, Instances


@dataclass(frozen=True)
class Prompted:
    """A promptable model. decode: options of its decoder; multimask: best of three masks instead of the single one."""

    model: SamModel
    decode: dict[str, Any] = field(default_factory=dict)
    multimask: bool = False


@dataclass(frozen=True)
class Segmented:
    """Instances found in one image.

    labels: (H, W) int32, ids 1..n, all classes on one plane, where the best score is on top. classes: (n,) int64 from
    0; scores: (n,). points: (p, 2) as x, y, what was detected; point_scores (p,), point_classes (p,); p need not be n.
    planes: (num_classes, H, W) int32, a label map for each class, or None for a single class. measured: the method's
    own counts of this image.
    """

    labels: Array
    classes: Array
    scores: Array
    points: Array
    point_scores: Array
    point_classes: Array
    planes: Array | None = None
    measured: dict[str, float] = field(default_factory=dict)


class Segmenter(Protocol):
    """Finds every instance of an image (H, W, 3) uint8. oracle: the truth, for rows that take its centroids."""

    def segment(self, image: Array, oracle: Instances | None = None) -> Segmented: ...
