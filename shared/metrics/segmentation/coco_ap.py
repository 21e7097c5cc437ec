"""COCO average precision by pycocotools, with mask IoU, box IoU or boundary IoU.

Boundary AP (Cheng et al., arXiv:2103.16562) takes min(mask IoU, boundary IoU) of a pair; a crowd
region keeps its mask IoU.
"""

import contextlib
import copy
import io
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.boundary import RATIO, boundary, boundary_distance

if TYPE_CHECKING:
    from pycocotools.coco import COCO

STRICT_RATIO = 0.01  # "strict" boundary AP of HQ-SAM (arXiv:2306.01567)
_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")

Kind = Literal["segm", "bbox", "boundary"]


def coco_ap(
    truth: "COCO", results: list[dict[str, Any]], kind: Kind = "segm", boundary_ratio: float = RATIO
) -> dict[str, float]:
    """AP, AP50, AP75 and AP_small, AP_medium, AP_large in 0..1 over all images and categories of `truth`.

    results: COCO result dicts (image_id, category_id, score, and segmentation as RLE or bbox as xywh); they
    stay as they are. NaN where no true object defines a value; 0 without results. Raises DataError for
    a result of an unknown image.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        found = _loaded(truth, results)
        if kind == "boundary":
            evaluation = boundary_evaluation(truth, found, boundary_ratio)
        else:
            from pycocotools.cocoeval import COCOeval

            evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats[: len(_NAMES)]]
    return {name: value if value >= 0 else float("nan") for name, value in zip(_NAMES, values, strict=True)}


def _loaded(truth: "COCO", results: list[dict[str, Any]]) -> "COCO":
    for number, result in enumerate(results):
        if result.get("image_id") not in truth.imgs:
            raise DataError(f"COCO result {number}: image_id {result.get('image_id')!r} is not in the annotations")
    if results:
        return truth.loadRes(copy.deepcopy(results))
    # loadRes looks at the first result.
    empty = copy.copy(truth)
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def boundary_evaluation(truth: "COCO", found: "COCO", ratio: float) -> Any:
    """A COCOeval whose IoU is that of boundary AP. ratio: boundary width over the picture's diagonal."""
    from pycocotools.cocoeval import COCOeval

    class BoundaryEval(COCOeval):
        _gts: Any
        _dts: Any

        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802  # the library's name
            masks = super().computeIoU(imgId, catId)
            if not len(masks):
                return masks
            regions = self._gts, self._dts
            self._gts, self._dts = (_rims(part, imgId, ratio) for part in regions)
            try:
                rims = super().computeIoU(imgId, catId)
            finally:
                self._gts, self._dts = regions
            categories = self.params.catIds if not self.params.useCats else [catId]
            crowd = np.array([bool(gt["iscrowd"]) for c in categories for gt in self._gts[imgId, c]])
            return np.where(crowd[None], masks, np.minimum(masks, rims))

    return BoundaryEval(truth, found, "segm")


def _rims(
    regions: dict[tuple[int, int], list[dict[str, Any]]], image_id: int, ratio: float
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The objects of one image with their boundaries in place of their regions."""
    rims = defaultdict(list)
    for (image, category), objects in list(regions.items()):
        if image == image_id:
            rims[image, category] = [{**o, "segmentation": boundary_rle(o["segmentation"], ratio)} for o in objects]
    return rims


def boundary_rle(rle: dict[str, Any], ratio: float) -> dict[str, Any]:
    """Run-length code of the boundary of a run-length coded mask of a whole picture."""
    from pycocotools import mask as codec

    mask = codec.decode(rle).astype(bool)
    rim = boundary(mask, boundary_distance(mask.shape[0], mask.shape[1], ratio))
    encoded: dict[str, Any] = codec.encode(np.asfortranarray(rim, dtype=np.uint8))
    return encoded
