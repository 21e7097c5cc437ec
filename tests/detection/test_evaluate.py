"""COCO's numbers: exact cases by hand, and the traps of the format."""

import copy
import json
import math

import numpy as np
import pytest

from shared.detection.detect import Detections
from shared.detection.evaluate import NAMES, average_precision, results_of
from shared.detection.scenes import make_scenes
from shared.errors import DataError
from shared.metrics.segmentation.coco_ap import coco_ap
from shared.segmentation.coco import coco_of, encode


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(12, 0)


@pytest.fixture(scope="module")
def truth(scenes):
    return coco_of(scenes.document())


def perfect(scenes, shift=0, keep=slice(None)):
    """The true objects as detections, boxes and masks moved to the right."""
    from shared.detection.examples import tight_boxes

    results = []
    for index, objects in enumerate(scenes.objects, 1):
        masks = np.roll(objects.masks, shift, axis=2)[keep]
        found = Detections(tight_boxes(masks), np.linspace(0.9, 0.5, len(masks)), objects.classes[keep], masks)
        results += results_of(index, found, [1, 2, 3])
    return results


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_truth_is_perfect(truth, scenes, kind):
    scores = average_precision(truth, perfect(scenes), kind)
    assert tuple(scores) == NAMES
    for name in ("AP", "AP50", "AP75", "AP_small", "AR100", "AR_small"):
        assert scores[name] == pytest.approx(1)
    assert math.isnan(scores["AP_large"])  # no object has 96 x 96 pixels
    assert scores["AR1"] < 1  # one detection an image cannot find several objects


def test_without_any_result_everything_is_missed(truth):
    scores = average_precision(truth, [], "bbox")
    assert scores["AP"] == scores["AR100"] == 0


def test_half_of_the_objects(truth, scenes):
    """Found is the first object of each image, without a false one."""
    results = perfect(scenes, keep=slice(0, 1))
    recall = average_precision(truth, results, "segm")["AR100"]
    shares = [
        sum(o.classes[0] == c for o in scenes.objects) / sum((o.classes == c).sum() for o in scenes.objects)
        for c in range(3)
    ]
    assert recall == pytest.approx(np.mean(shares))


def test_the_numbers_are_those_of_the_other_implementation(truth, scenes):
    """`coco_ap` of the segmentation track, where results hold one kind of region only."""
    results = perfect(scenes, shift=2)
    for kind, key in (("segm", "segmentation"), ("bbox", "bbox")):
        only = [{name: r[name] for name in ("image_id", "category_id", "score", key)} for r in results]
        found, theirs = average_precision(truth, results, kind), coco_ap(truth, only, kind)
        for name, value in theirs.items():
            assert found[name] == pytest.approx(value, nan_ok=True)
        assert 0 < found["AP"] < 1


def test_results_stay_as_they_are_and_are_json(truth, scenes):
    results = perfect(scenes)
    before = copy.deepcopy(results)
    average_precision(truth, results, "segm")
    assert json.loads(json.dumps(results)) == before


def test_areas_of_mask_results_are_those_of_masks(squares):
    """A thin mask in a large box: unmatched, it is a small object's false positive, not a medium one's."""
    shape = (100, 100)
    true = squares(shape, 0, 0, 8)
    diagonal = np.eye(100, dtype=bool)
    document = {
        "images": [{"id": 1, "file_name": "a", "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "c"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": encode(true), "bbox": [0, 0, 8, 8]}],
    }
    found = Detections(
        np.array([[0, 0, 100, 100], [0, 0, 8, 8]], np.float32),
        np.array([0.9, 0.8]),
        np.zeros(2, int),
        np.stack([diagonal, true]),
    )
    results = results_of(1, found, [1])
    assert average_precision(coco_of(document), results, "segm")["AP_small"] == pytest.approx(0.5)
    assert average_precision(coco_of(document), results, "bbox")["AP_small"] == pytest.approx(1)


def test_every_trap_of_a_file(traps):
    """Gaps in the category ids, polygons, codes, crowds, an image without objects, an entry without bbox."""
    from shared.detection.examples import SourceExamples

    results = []
    for index, example in enumerate(SourceExamples(traps)):
        found = Detections(example.boxes, np.full(len(example), 0.9), example.classes, example.masks)
        results += results_of(traps.image_ids[index], found, traps.category_ids)
    assert {result["category_id"] for result in results} == {7, 30}
    # the four objects without area that the file names cannot be found
    boxes = average_precision(traps.coco, results, "bbox", image_ids=[5, 2])
    assert boxes["AP"] == pytest.approx(1)
    masks = average_precision(traps.coco, results, "segm")
    thirty = [r for r in results if r["category_id"] == 30]
    assert len(thirty) == 1
    assert masks["AP"] > 0.5
    assert "bbox" not in traps.coco.anns[7]


def test_detections_in_a_crowd_are_neither_right_nor_wrong(traps):
    crowd = traps.coco.annToMask(traps.coco.anns[3]).astype(bool)
    seven = Detections(
        np.array([[5, 25, 15, 35]] * 3, np.float32),
        np.array([0.99, 0.98, 0.97]),
        np.zeros(3, int),
        np.stack([crowd] * 3),
    )
    real = Detections(np.array([[50, 30, 56, 36]], np.float32), np.array([0.5]), np.zeros(1, int), traps[2].masks)
    results = results_of(1, seven, [7, 30]) + results_of(5, real, [7, 30])
    outside = results_of(2, seven, [7, 30])  # the same in an image without objects
    inside = average_precision(traps.coco, results, "bbox")["AP50"]
    assert inside > average_precision(traps.coco, results + outside, "bbox")["AP50"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "COCO result 1: image_id 99 is not in the annotations"),
        ({"category_id": 4}, "COCO result 1: category_id 4 is not in the annotations"),
        ({"score": float("nan")}, "COCO result 1: score nan, expected a finite number"),
        ({"bbox": [1, 2, 3]}, r"COCO result 1: bbox \[1, 2, 3\], expected four numbers"),
    ],
)
def test_results_that_are_none(truth, scenes, change, message):
    results = perfect(scenes)
    results[1] = results[1] | change
    with pytest.raises(DataError, match=message):
        average_precision(truth, results, "bbox")


def test_a_result_without_its_region(truth, scenes):
    results = [{name: r[name] for name in ("image_id", "category_id", "score", "bbox")} for r in perfect(scenes)]
    assert average_precision(truth, results, "bbox")["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match="COCO result 0: has no 'segmentation'"):
        average_precision(truth, results, "segm")
