"""COCO average precision of masks that a promptable model makes of a detector's boxes (HQ-SAM, arXiv:2306.01567,
tables 4 to 7)."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.pull import pull
from shared.errors import ConfigError, DataError
from shared.metrics.segmentation.coco_ap import STRICT_RATIO, coco_ap
from shared.segmentation.coco import CocoSource, coco_of, coco_results
from shared.segmentation.context import Context
from shared.segmentation.evaluate.evaluated import Evaluated, ahead, defined
from shared.segmentation.evaluate.spec import DetectionsSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.predictor import Predictor
from shared.segmentation.samples import Array, Source
from shared.segmentation.views import Subset

_MASK_AP = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP_small": "AP_S", "AP_medium": "AP_M", "AP_large": "AP_L"}
_BOUNDARY_AP = {"AP": "AP_B", "AP50": "AP_B50", "AP75": "AP_B75"}
Box = dict[str, Any]


def evaluate_detections(prompted: Prompted, source: Source, spec: DetectionsSpec, context: Context) -> Evaluated:
    """AP, AP50, AP75, AP_S, AP_M, AP_L, AP_B, AP_B50, AP_B75, with `strict` also AP_B_strict and so on; percent.

    Images are fitted by their longer side and padded, as SAM's predictor does. source: a COCO set or some images of
    one. Raises ConfigError for another source, DataError for a file of boxes that does not belong to it.
    """
    coco, indices = _coco_part(source)
    path = pull(spec.detector.manifest) / spec.detector.file
    found = boxes_by_image(path, coco, spec)
    predictor = Predictor(prompted.model, **prompted.decode)
    results: list[dict[str, Any]] = []
    for place, sample in enumerate(ahead(source.__getitem__, range(len(source)), context.threads)):
        image_id = coco.image_ids[indices[place]]
        if found.get(image_id):
            results += _results(predictor, prompted.multimask, sample.image, image_id, found[image_id], spec)
    truth = _restricted(coco, [coco.image_ids[index] for index in indices])
    metrics = _renamed(coco_ap(truth, results), _MASK_AP)
    metrics |= _renamed(coco_ap(truth, results, "boundary"), _BOUNDARY_AP)
    if spec.strict:
        strict = {name: f"{ours}_strict" for name, ours in _BOUNDARY_AP.items()}
        metrics |= _renamed(coco_ap(truth, results, "boundary", STRICT_RATIO), strict)
    return Evaluated(defined(metrics), {})


def boxes_by_image(path: Path, coco: CocoSource, spec: DetectionsSpec) -> dict[int, list[Box]]:
    """The `max_boxes` best boxes of each image, best first, from a COCO result file.

    Raises DataError naming the first entry that lacks a key, or names an image or a category that is not annotated.
    """
    categories = set(coco.category_ids)
    if spec.detector.class_agnostic and len(categories) != 1:
        raise ConfigError(
            f"evaluate.detector.class_agnostic: {coco.path.name} has {len(categories)} categories, not one"
        )
    found: dict[int, list[Box]] = {}
    for number, box in enumerate(_entries(path)):
        _check(box, f"{path}: box {number}")
        category = coco.category_ids[0] if spec.detector.class_agnostic else box["category_id"]
        if box["image_id"] not in coco.coco.imgs or category not in categories:
            raise DataError(
                f"{path}: box {number} has image_id {box['image_id']} and category_id {category}; "
                f"{coco.path.name} has not both: are the files of the same data set?"
            )
        found.setdefault(box["image_id"], []).append({**box, "category_id": category})
    return {image: sorted(boxes, key=lambda box: -box["score"])[: spec.max_boxes] for image, boxes in found.items()}


def _entries(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; see the manifest for where boxes come from") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable JSON ({error})") from None
    if not isinstance(content, list):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected a list of COCO results")
    return content


def _check(box: Any, where: str) -> None:
    lacking = (
        [key for key in ("image_id", "category_id", "bbox", "score") if key not in box] if isinstance(box, dict) else []
    )
    if not isinstance(box, dict) or lacking:
        raise DataError(f"{where} has no {lacking[0]}" if lacking else f"{where} is a {type(box).__name__}")
    numbers = [*box["bbox"], box["score"]] if isinstance(box["bbox"], list) else []
    if len(numbers) != 5 or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        raise DataError(f"{where}: bbox {box['bbox']!r} and score {box['score']!r}, expected four numbers and one")


def _coco_part(source: Source) -> tuple[CocoSource, Sequence[int]]:
    """The COCO set behind a source, and which of its images the source has."""
    if isinstance(source, CocoSource):
        return source, range(len(source))
    if isinstance(source, Subset):
        coco, indices = _coco_part(source.source)
        return coco, [indices[index] for index in source.indices]
    raise ConfigError("evaluate.data: detections are evaluated on a data set of kind 'coco'")


def _results(
    predictor: Predictor, multimask: bool, image: Array, image_id: int, boxes: Sequence[Box], spec: DetectionsSpec
) -> list[dict[str, Any]]:
    """COCO results of one image's boxes."""
    corners = np.array([box["bbox"] for box in boxes], np.float32)
    corners[:, 2:] += corners[:, :2]
    predicted = predictor.predict(predictor.embed(image), boxes=corners, multimask=multimask)
    rows, best = np.arange(len(boxes)), predicted.iou.argmax(1)
    scores = np.array([box["score"] for box in boxes], np.float64)
    if spec.score == "product":
        scores = scores * predicted.iou[rows, best]
    return coco_results(image_id, predicted.masks[rows, best], scores, [box["category_id"] for box in boxes])


def _restricted(coco: CocoSource, image_ids: Sequence[int]) -> Any:
    """pycocotools' index of some of the images."""
    if len(image_ids) == len(coco):
        return coco.coco
    kept, content = set(image_ids), coco.coco.dataset
    images = [image for image in content["images"] if image["id"] in kept]
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in kept]
    return coco_of({**content, "images": images, "annotations": annotations}, str(coco.path))


def _renamed(values: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    return {ours: 100 * values[name] for name, ours in names.items()}
