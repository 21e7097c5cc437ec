"""Numbers of detectors whose answers are known, on generated scenes and on a COCO file with every trap."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shared.detection import judge
from shared.detection.detect import Detections
from shared.detection.examples import tight_boxes
from shared.detection.judge import Detecting, evaluate, truth_of
from shared.detection.scenes import CATEGORIES, make_scenes
from shared.detection.spec import DetectionSpec
from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.samples import Instances, Sample
from shared.segmentation.views import Subset

DATA = {"kind": "generated", "manifest": "shape_scenes", "part": "validation"}
SPEC = DetectionSpec(data=DATA, classes=CATEGORIES, batch=4)
SCENES = make_scenes(10, 3)


class Named(nn.Module):
    """Stands for a detector; what it finds is set by `answering`."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@dataclass(frozen=True)
class Opened(Context):
    """Opens the same source whatever is asked for."""

    def open(self, spec: Any) -> Any:
        return SCENES


CONTEXT = Opened(torch.device("cpu"), 1)


def objects(sample):
    """The true objects of a scene as detections."""
    number = len(sample.truth)
    return Detections(tight_boxes(sample.masks), np.linspace(0.9, 0.6, number), sample.truth.classes, sample.masks)


@pytest.fixture
def answering(monkeypatch):
    """Let `detect` answer with the true objects, changed by a function."""

    def use(change, calls=None):
        by_image = {sample.image.tobytes(): sample for sample in (SCENES[i] for i in range(len(SCENES)))}

        def found(model, images, size, pixels):
            if calls is not None:
                calls.append(len(images))
            return [change(objects(by_image[image.tobytes()])) for image in images]

        monkeypatch.setattr(judge, "detect", found)

    return use


def nothing(found):
    return Detections(found.boxes[:0], found.scores[:0], found.classes[:0], found.masks[:0])


def test_the_truth_scores_a_hundred(answering):
    calls = []
    answering(lambda found: found, calls)
    found = evaluate(Detecting(Named()), SPEC, CONTEXT)
    assert {found.metrics[name] for name in ("AP_box", "AP_mask", "AP50_box", "AP75_mask", "AR100_box")} == {100.0}
    assert calls == [4, 4, 2]
    assert {case.score for case in found.cases} == {1.0}
    assert len(found.cases) == 9


def test_pictures_show_detections_from_a_score_on(answering):
    answering(lambda found: found)  # of each image the best with 0.9, the last with 0.6
    found = evaluate(Detecting(Named()), SPEC.model_copy(update={"shown": 0.7}), CONTEXT)
    assert found.extras["shown"] == 0.7
    several = [case for case in found.cases if case.truth.max() > 1]
    assert several
    for case in several:
        assert 0 < len(np.unique(case.found)) < len(np.unique(case.truth))
        assert case.score < 1
    assert found.metrics["AP_box"] == 100  # the numbers are of all of them


def test_nothing_found_scores_zero_and_sizes_without_objects_are_left_out(answering):
    answering(nothing)
    found = evaluate(Detecting(Named()), SPEC, CONTEXT)
    assert found.metrics["AP_box"] == found.metrics["AP_mask"] == 0
    assert "AP_small_box" in found.metrics
    assert "AP_large_box" not in found.metrics  # 64 pixels hold no object of 96 x 96


def test_wrong_classes_score_zero(answering):
    answering(lambda found: Detections(found.boxes, found.scores, (found.classes + 1) % 3, found.masks))
    assert evaluate(Detecting(Named()), SPEC, CONTEXT).metrics["AP_box"] < 5


def test_draws_are_averaged_with_generators_of_their_own(answering):
    drawn = []

    @contextmanager
    def sampling(generator):
        drawn.append(float(torch.rand((), generator=generator)))
        yield

    answering(lambda found: found if len(drawn) == 1 else nothing(found))
    spec = SPEC.model_copy(update={"draws": 4})
    found = evaluate(Detecting(Named(), sampling), spec, CONTEXT)
    assert found.metrics["AP_box"] == pytest.approx(25)
    assert len(set(drawn)) == 4
    assert len(found.cases) == 9  # of the first draw alone
    first, drawn[:] = list(drawn), []
    evaluate(Detecting(Named(), sampling), spec, CONTEXT)
    assert drawn == first


def test_a_detector_that_draws_nothing_is_asked_once(answering):
    calls = []
    answering(lambda found: found, calls)
    evaluate(Detecting(Named()), SPEC.model_copy(update={"draws": 3}), CONTEXT)
    assert sum(calls) == len(SCENES)


def test_the_truth_of_scenes_is_their_own_document():
    truth = truth_of(Subset(SCENES, [4, 2]), CATEGORIES)
    assert truth.image_ids == [1, 2]
    assert truth.category_ids == [1, 2, 3]
    assert [image["file_name"] for image in truth.coco.dataset["images"]] == [SCENES.names[4], SCENES.names[2]]
    assert len(truth.coco.dataset["annotations"]) == len(SCENES[4].truth) + len(SCENES[2].truth)


def test_a_coco_file_keeps_its_ids_crowds_and_gaps(traps):
    truth = truth_of(traps, ["seven", "thirty"])
    assert truth.coco is traps.coco
    assert (truth.image_ids, truth.category_ids) == ([1, 2, 5], [7, 30])
    assert truth_of(Subset(traps, [2, 0]), ["seven", "thirty"]).image_ids == [5, 1]
    with pytest.raises(DataError, match=r"instances\.json: has 2 categories, evaluate\.classes names 1"):
        truth_of(traps, ["nucleus"])


def test_label_maps_are_instances_and_soft_masks_are_not():
    labels = np.zeros((8, 8), np.int32)
    labels[2:4, 2:6] = 1
    sample = Sample("a", np.zeros((8, 8, 3), np.uint8), Instances(labels, np.zeros(1, int)))

    class One:
        names = ("a",)

        def __init__(self, sample):
            self.sample = sample

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return self.sample

    (annotation,) = truth_of(One(sample), ["nucleus"]).coco.dataset["annotations"]
    assert annotation["bbox"] == [2, 2, 4, 2]
    assert annotation["area"] == 8
    with pytest.raises(DataError, match="a: one soft mask, a detector needs instances"):
        truth_of(One(Sample("a", sample.image, labels.astype(np.uint8))), ["nucleus"])
