"""COCO's average precision and recall of detections, for boxes and masks, by pycocotools.

results = results_of(image_id, detections, category_ids)      # of one image, ready for JSON
scores = average_precision(truth, results, "bbox")            # fractions of 1
"""

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from shared.detection.detect import Detections
from shared.detection.examples import corners_of
from shared.errors import DataError
from shared.segmentation.coco import coco_of, coco_results

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Kind = Literal["bbox", "segm"]
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def results_of(image_id: int, found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO result dicts of one image: bbox as x, y, width, height, the mask run-length coded.

    category_ids: of the classes 0, 1, ...; they may have gaps.
    """
    categories = [category_ids[kind] for kind in found.classes.tolist()]
    results = coco_results(image_id, found.masks, found.scores, categories)
    for result, (left, top, right, bottom) in zip(results, found.boxes.tolist(), strict=True):
        result["bbox"] = [round(value, 3) for value in (left, top, right - left, bottom - top)]
    return results


def average_precision(
    truth: "COCO", results: list[dict[str, Any]], kind: Kind, image_ids: Sequence[int] | None = None
) -> dict[str, float]:
    """COCO's twelve numbers in 0..1 over all categories and the images `image_ids` (None: all of `truth`).

    truth: pycocotools' index of an annotation file (`CocoSource.coco`), boxes filled in from masks where the file has
    none. results: of any images of it; they stay as they are. Objects of an image without results are missed ones,
    results of an image without objects are false. NaN where no object defines a number (no small ones, say);
    without any result precision and recall are 0. Areas of `segm` are those of masks, also of results.
    Raises DataError naming the first result of an unknown image or category, without score, or without `kind`.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_with_boxes(truth), _loaded(truth, results, kind), kind)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats]
    return {name: value if value >= 0 else math.nan for name, value in zip(NAMES, values, strict=True)}


def _loaded(truth: "COCO", results: list[dict[str, Any]], kind: Kind) -> "COCO":
    key = "bbox" if kind == "bbox" else "segmentation"
    chosen = []
    for number, result in enumerate(results):
        _check(truth, result, number, key)
        # with both, pycocotools takes the box's area for the mask's
        chosen.append({name: copy.copy(result[name]) for name in ("image_id", "category_id", "score", key)})
    if chosen:
        return truth.loadRes(chosen)
    # loadRes looks at the first result
    return coco_of({**truth.dataset, "annotations": []})


def _check(truth: "COCO", result: dict[str, Any], number: int, key: str) -> None:
    where = f"COCO result {number}"
    for name, known in (("image_id", truth.imgs), ("category_id", truth.cats)):
        if result.get(name) not in known:
            raise DataError(f"{where}: {name} {result.get(name)!r} is not in the annotations")
    score = result.get("score")
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise DataError(f"{where}: score {score!r}, expected a finite number")
    if key not in result:
        raise DataError(f"{where}: has no '{key}'")
    if key == "bbox":
        corners_of(result[key], where)


def _with_boxes(truth: "COCO") -> "COCO":
    """The annotations, each with a bbox."""
    from pycocotools import mask as codec

    annotations = truth.dataset["annotations"]
    if all("bbox" in annotation for annotation in annotations):
        return truth
    filled = [{"bbox": codec.toBbox(truth.annToRLE(annotation)).tolist(), **annotation} for annotation in annotations]
    return coco_of({**truth.dataset, "annotations": filled})
