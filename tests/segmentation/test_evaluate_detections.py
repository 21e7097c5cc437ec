"""COCO evaluation with boxes of a file: against pycocotools on masks made box by box, and files that do not fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from shared.errors import ConfigError, DataError
from shared.metrics.segmentation.coco_ap import coco_ap
from shared.segmentation.coco import CocoSource, coco_document, coco_results
from shared.segmentation.context import Context
from shared.segmentation.evaluate import detections
from shared.segmentation.evaluate.detections import boxes_by_image, evaluate_detections
from shared.segmentation.evaluate.spec import DetectionsSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.decoder import Masks
from shared.segmentation.sam.model import SamModel
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.predictor import Predictor
from shared.segmentation.samples import Objects
from shared.segmentation.views import Subset

DATA = {"kind": "coco", "manifest": "some_coco", "annotations": "a.json", "images": "images"}
CONTEXT = Context(torch.device("cpu"), 1)


class BoxFiller(SamModel):
    """Answers every box with the box itself; the predicted IoU falls with its width. Three masks if asked for them."""

    def __init__(self):
        super().__init__(SIZES["small_patch8"])

    def forward(self, source, prompts, multimask=False, **options):
        low, scale = self.size.low_res, self.size.image / self.size.low_res
        places = (torch.arange(low) + 0.5) * scale
        x0, y0, x1, y1 = prompts.boxes.unbind(1)
        inside = (places >= x0[:, None]) & (places < x1[:, None]), (places >= y0[:, None]) & (places < y1[:, None])
        masks = (inside[1][:, :, None] & inside[0][:, None]).float()[:, None] * 20 - 10
        iou = (1 - (x1 - x0) / 100)[:, None]
        if multimask:
            masks, iou = torch.cat([-masks.abs(), masks], 1), torch.cat([iou - 0.1, iou], 1)
        return Masks(masks, iou)


@pytest.fixture
def coco(tmp_path):
    """Three 64x64 images with squares of two categories (ids 1, 2), which a BoxFiller can hit exactly."""
    (tmp_path / "images").mkdir()
    objects, names = [], ["a.png", "b.png", "c.png"]
    for number, name in enumerate(names):
        Image.fromarray(np.full((64, 64, 3), 60 * number, np.uint8)).save(tmp_path / "images" / name)
        masks = np.zeros((2, 64, 64), bool)
        masks[0, 8:40, 8:24] = masks[1, 40:60, 20:60] = True
        objects.append(Objects(masks, np.array([0, 1]), np.zeros(2, bool), np.arange(2)))
    (tmp_path / "a.json").write_text(json.dumps(coco_document(names, objects, ["cat", "dog"])))
    return CocoSource(tmp_path / "a.json", tmp_path / "images")


def boxes(**changed):
    """The true boxes of all images, in rising image id."""
    found = []
    for image in (1, 2, 3):
        found.append({"image_id": image, "category_id": 1, "bbox": [8, 8, 16, 32], "score": 0.9})
        found.append({"image_id": image, "category_id": 2, "bbox": [20, 40, 40, 20], "score": 0.8})
    return [{**box, **changed} for box in found]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file of boxes into the folder of a pulled manifest."""
    monkeypatch.setattr(detections, "pull", lambda name: tmp_path / name)

    def write(content):
        (tmp_path / "detector").mkdir(exist_ok=True)
        path = tmp_path / "detector" / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def spec(class_agnostic=False, **values):
    detector = {"manifest": "detector", "file": "boxes.json", "class_agnostic": class_agnostic}
    return DetectionsSpec(data=DATA, detector=detector, **values)


@pytest.mark.parametrize("multimask", [False, True])
def test_exact_masks_have_ap_100(coco, file, multimask):
    file(boxes())
    found = evaluate_detections(Prompted(BoxFiller(), multimask=multimask), coco, spec(strict=True), CONTEXT).metrics
    names = ["AP", "AP50", "AP75", "AP_S", "AP_B", "AP_B50", "AP_B75", "AP_B_strict", "AP_B50_strict", "AP_B75_strict"]
    assert sorted(found) == sorted(names)  # there is no medium or large object
    assert found == pytest.approx(dict.fromkeys(names, 100))


def test_values_are_those_of_masks_made_box_by_box(coco, file):
    moved = boxes()
    for number, box in enumerate(moved):
        box["bbox"] = [x + number for x in box["bbox"][:2]] + box["bbox"][2:]
    file(moved)
    model = BoxFiller()
    found = evaluate_detections(Prompted(model), coco, spec(), CONTEXT).metrics
    predictor, results = Predictor(model), []
    for box in moved:
        x, y, w, h = box["bbox"]
        predicted = predictor.predict(predictor.embed(coco[box["image_id"] - 1].image), boxes=[[x, y, x + w, y + h]])
        score = box["score"] * predicted.iou[0]
        results += coco_results(box["image_id"], predicted.masks[:, 0], score, [box["category_id"]])
    expected = coco_ap(coco.coco, results)
    assert found["AP"] == pytest.approx(100 * expected["AP"])
    assert found["AP75"] == pytest.approx(100 * expected["AP75"])
    assert found["AP_B"] == pytest.approx(100 * coco_ap(coco.coco, results, "boundary")["AP"])
    assert 0 < found["AP_B"] < found["AP"] < 100


def test_the_score_is_the_detectors_times_the_predicted_iou(coco, file):
    """A narrow wrong box has a lower score of the detector, and a higher predicted IoU, than the right one."""
    wrong = [{**box, "bbox": [0, 0, 4, 4], "score": 0.5 * box["score"]} for box in boxes() if box["category_id"] == 2]
    file([box for box in boxes() if box["category_id"] == 2] + wrong)
    of_dogs = {
        score: evaluate_detections(Prompted(BoxFiller()), coco, spec(score=score), CONTEXT).metrics["AP"]
        for score in ("detector", "product")
    }
    assert of_dogs["detector"] == pytest.approx(50)  # the mean with cats, of which nothing was found
    doubled = [{**box, "score": 0.9 * box["score"] / 0.5} for box in wrong]
    file([box for box in boxes() if box["category_id"] == 2] + doubled)
    swapped = evaluate_detections(Prompted(BoxFiller()), coco, spec(score="product"), CONTEXT).metrics["AP"]
    assert swapped < of_dogs["product"] == pytest.approx(50)


def test_the_best_boxes_are_taken_and_a_limit_restricts_the_truth(coco, file):
    path = file(boxes())
    kept = boxes_by_image(path, coco, spec(max_boxes=1))
    assert [[box["category_id"] for box in found] for found in kept.values()] == [[1]] * 3
    file([box for box in boxes() if box["image_id"] == 2])
    prompted = Prompted(BoxFiller())
    assert evaluate_detections(prompted, coco, spec(), CONTEXT).metrics["AP"] < 50
    part = Subset(Subset(coco, [2, 1]), [1])
    assert part.names == ["b.png"]
    assert evaluate_detections(prompted, part, spec(), CONTEXT).metrics["AP"] == pytest.approx(100)


def test_no_boxes_no_ap(coco, file):
    file([])
    assert evaluate_detections(Prompted(BoxFiller()), coco, spec(), CONTEXT).metrics["AP"] == 0


def test_boxes_without_regard_to_their_category(coco, file, tmp_path):
    file(boxes(category_id=77))
    with pytest.raises(ConfigError, match=r"class_agnostic: a\.json has 2 categories, not one"):
        evaluate_detections(Prompted(BoxFiller()), coco, spec(class_agnostic=True), CONTEXT)
    content = json.loads((tmp_path / "a.json").read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 2
    content["categories"] = content["categories"][1:]
    (tmp_path / "b.json").write_text(json.dumps(content))
    single = CocoSource(tmp_path / "b.json", tmp_path / "images")
    found = evaluate_detections(Prompted(BoxFiller()), single, spec(class_agnostic=True), CONTEXT)
    assert found.metrics["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (boxes(image_id=9), "boxes.json: box 0 has image_id 9 and category_id 1; a.json has not both"),
        (boxes(category_id=90), "box 0 has image_id 1 and category_id 90"),
        ([{"image_id": 1, "category_id": 1, "score": 1.0}], "box 0 has no bbox"),
        (boxes(bbox=[1, 2, 3]), r"box 0: bbox \[1, 2, 3\] and score 0.9, expected four numbers"),
        (boxes(score=None), "box 0: bbox .* and score None"),
        (boxes(bbox=7), "box 0: bbox 7"),
        ([3], "box 0 is a int"),
        ({"annotations": []}, "holds a dict, expected a list of COCO results"),
        ("[{", "boxes.json: no readable JSON"),
    ],
)
def test_files_that_do_not_fit_are_one_line(coco, file, content, message):
    file(content)
    with pytest.raises(DataError, match=message):
        evaluate_detections(Prompted(BoxFiller()), coco, spec(), CONTEXT)


def test_a_missing_file_and_another_kind_of_data_are_one_line(coco, tmp_path, monkeypatch):
    monkeypatch.setattr(detections, "pull", lambda name: tmp_path)
    with pytest.raises(DataError, match=r"boxes.json: no such file; see the manifest"):
        evaluate_detections(Prompted(BoxFiller()), coco, spec(), CONTEXT)
    with pytest.raises(ConfigError, match=r"evaluate\.data: detections are evaluated on a data set of kind 'coco'"):
        evaluate_detections(Prompted(BoxFiller()), object(), spec(), CONTEXT)
