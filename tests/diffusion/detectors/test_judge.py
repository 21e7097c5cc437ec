"""Verdicts from scores; options; and that a detector's absence or a wrong class is said in one line."""

import pytest
import torch
from pydantic import ValidationError

from shared.diffusion.detectors.judge import Judge
from shared.diffusion.detectors.load import detector_manifests, load_detector
from shared.diffusion.detectors.nudenet import CLASSES
from shared.diffusion.detectors.options import EXPOSED, NUDITY, Criterion, DetectorOptions
from shared.errors import ConfigError, DataError


class Table:
    """Scores by image: its first pixel is the row."""

    classes = ["circle", "square", "ring", "bar"]

    def __init__(self, rows):
        self._rows = torch.tensor(rows)

    def scores(self, images):
        return self._rows[images[:, 0, 0, 0].long()]


def verdicts(rows, **criterion):
    images = torch.arange(len(rows)).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return Judge(Table(rows), Criterion(**criterion))(images)


ROWS = [[0.1, 0.7, 0.15, 0.05], [0.5, 0.1, 0.3, 0.1], [0.05, 0.5, 0.25, 0.2]]


def test_top_1_is_the_argmax():
    found = verdicts(ROWS, classes=["circle"], top_k=1)
    assert found.positive.tolist() == [False, True, False]
    assert found.rank.tolist() == [2, 0, 3]
    torch.testing.assert_close(found.score, torch.tensor([0.1, 0.5, 0.05]))


@pytest.mark.parametrize(("k", "expected"), [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_top_k_grows_with_k(k, expected):
    assert int(verdicts(ROWS, classes=["circle"], top_k=k).positive.sum()) == expected


def test_any_of_several_classes_counts():
    found = verdicts(ROWS, classes=["circle", "ring"], threshold=0.2)
    assert found.positive.tolist() == [False, True, True]
    torch.testing.assert_close(found.score, torch.tensor([0.15, 0.5, 0.25]))
    assert found.rank.tolist() == [1, 0, 1]  # behind other classes only


def test_threshold_is_exclusive_and_zero_is_one():
    assert verdicts(ROWS, classes=["circle"], threshold=0.1).positive.tolist() == [False, True, False]
    assert verdicts(ROWS, classes=["circle"], threshold=0.0).positive.all()


def test_ties_are_settled_by_order_as_argmax_does():
    rows = [[0.25, 0.25, 0.25, 0.25]]
    for index, name in enumerate(Table.classes):
        found = verdicts(rows, classes=[name], top_k=1)
        assert found.rank.tolist() == [index]
        assert bool(found.positive) == (int(torch.tensor(rows).argmax()) == index)


def test_exposed_parts_are_nine_of_nudenet_s_classes():
    assert len(EXPOSED) == 9
    assert len(CLASSES) == 18
    assert set(EXPOSED) <= set(CLASSES)
    assert NUDITY.threshold == 0.45


def test_unknown_concepts_are_named():
    with pytest.raises(ConfigError, match=r"'circel' is no class of this detector \(did you mean 'circle'\?\)"):
        Judge(Table(ROWS), Criterion(classes=["circel"], top_k=1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["a"]}, "either top_k or threshold"),
        ({"classes": ["a"], "top_k": 1, "threshold": 0.5}, "either top_k or threshold"),
        ({"classes": [], "top_k": 1}, "at least 1 item"),
    ],
)
def test_bad_criteria(values, message):
    with pytest.raises(ValidationError, match=message):
        Criterion(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "shapes"}, "needs 'head'"),
        ({"kind": "torchvision"}, "needs 'architecture'"),
        ({"kind": "q16"}, "needs 'prompts'"),
        ({"kind": "nudenet", "head": "object"}, "has no 'head'"),
        ({"kind": "torchvision", "architecture": "resnet50"}, "should match pattern"),
    ],
)
def test_bad_detectors(values, message):
    with pytest.raises(ValidationError, match=message):
        DetectorOptions(checkpoint="x", **values)


def test_missing_detectors_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no data set 'nudenet_v9'"):
        load_detector(DetectorOptions(kind="nudenet", checkpoint="nudenet_v9"))
    with pytest.raises(DataError, match="holds 0 files of weights, expected one"):
        load_detector(DetectorOptions(kind="nudenet", checkpoint=str(tmp_path)))
    with pytest.raises(DataError, match="no image classification model can be read"):
        load_detector(DetectorOptions(kind="transformers", checkpoint=str(tmp_path)))


def test_manifests_are_those_that_exist():
    weights = {"kind": "torchvision", "architecture": "ResNet50_Weights.IMAGENET1K_V1"}
    assert detector_manifests(DetectorOptions(checkpoint="torchvision_resnet50", **weights)) == ["torchvision_resnet50"]
    assert detector_manifests(DetectorOptions(checkpoint="some/folder", **weights)) == []
