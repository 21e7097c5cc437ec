"""The method as a row runs it: where points come from, what is counted, and which options contradict each other."""

import numpy as np
import pytest
import torch

from papers.promptnucseg import method
from papers.promptnucseg.method import NucleusSegmenter, PromptNucSegOptions, promptnucseg
from papers.promptnucseg.prompter.model import build_prompter
from papers.promptnucseg.prompter.options import PrompterTraining, SmallNet
from papers.promptnucseg.prompter.predict import Points
from papers.promptnucseg.segmentor.options import SegmentorTraining
from shared.errors import DataError, UserError
from shared.metrics.segmentation.instances import aji, overlaps
from shared.options import options_class, parse_options
from shared.segmentation.protocol import parts_of
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.samples import Instances

PATH = "papers.promptnucseg.method:promptnucseg"
SMALL = PrompterTraining(backbone=SmallNet(widths=[4, 8, 8]), width=8, num_classes=3)
WINDOW = {"window": 32, "overlap": 8, "edge_margin": 2}


def truth():
    labels = np.zeros((40, 48), np.int32)
    for number in range(12):
        y, x = 12 * (number // 4), 12 * (number % 4)
        labels[y + 1 : y + 10, x + 1 : x + 10] = number + 1
    return Instances(labels, np.arange(12) % 3), np.repeat(labels[..., None], 3, 2).astype(np.uint8)


def oracle(reading, **changes):
    options = PromptNucSegOptions(prompts="oracle", **{"num_classes": 3, **WINDOW, **changes})
    return NucleusSegmenter(reading(), None, options)


def test_the_oracle_s_centroids_give_every_nucleus_and_its_class(reading):
    instances, image = truth()
    found = oracle(reading).segment(image, instances)
    assert aji(overlaps(instances.labels, found.labels)) == 1
    assert found.labels.dtype == np.int32
    for number in range(1, 13):
        owner = instances.labels[found.labels == number][0]
        assert found.classes[number - 1] == instances.classes[owner - 1]
    assert found.scores.shape == (12,)
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_array_equal(found.point_classes, instances.classes)
    assert found.points.shape == (12, 2)
    assert found.point_scores.tolist() == [1.0] * 12
    for plane in range(3):
        of_class = np.isin(instances.labels, np.flatnonzero(instances.classes == plane) + 1)
        np.testing.assert_array_equal(found.planes[plane] > 0, of_class)
    assert found.measured == {"candidate_points": 12.0, "kept_points": 12.0, "prompts": 12.0}


def test_the_oracle_has_to_be_given(reading):
    with pytest.raises(DataError, match="centroids of the true nuclei, which this image has not"):
        oracle(reading).segment(truth()[1])


def test_an_image_without_nuclei(reading):
    _, image = truth()
    found = oracle(reading).segment(image, Instances(np.zeros(image.shape[:2], np.int32), np.zeros(0, np.int64)))
    assert not found.labels.any()
    assert found.points.shape == (0, 2)
    assert len(found.classes) == len(found.scores) == 0
    assert found.planes.shape == (3, 40, 48)


def test_classes_beyond_the_number_are_refused(reading):
    instances, image = truth()
    with pytest.raises(DataError, match="a nucleus of class 2, but num_classes is 2"):
        oracle(reading, num_classes=2).segment(image, instances)


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_other_images_are_refused(reading, image):
    with pytest.raises(DataError, match=r"must be \(H, W, 3\) uint8"):
        oracle(reading).segment(image, truth()[0])


@pytest.mark.parametrize(("filtered", "kept"), [(True, 3), (False, 4)])
def test_points_are_filtered_then_suppressed_then_prompt(reading, monkeypatch, filtered, kept):
    instances, image = truth()
    foreground = np.where(instances.labels > 0, 1.0, -1.0).astype(np.float32)
    xy = np.array([[5.4, 5.2], [7, 6], [17, 5], [0, 0]], np.float32)  # two of one nucleus, one beside all
    raw = Points(xy, np.array([0.5, 0.9, 0.8, 0.95], np.float32), np.array([0, 2, 1, 1]), foreground)
    monkeypatch.setattr(method, "candidates", lambda prompter, image: raw)
    options = PromptNucSegOptions(prompter=SMALL, filter=filtered, radius=4.0, **WINDOW)
    found = NucleusSegmenter(reading(), build_prompter(SMALL, 0), options).segment(image, None)
    assert found.measured == {"candidate_points": 4.0, "kept_points": float(kept), "prompts": float(kept - 1)}
    assert found.points.tolist() == ([] if filtered else [[0, 0]]) + [[7, 6], [17, 5]]
    np.testing.assert_array_equal(found.labels > 0, np.isin(instances.labels, [1, 2]))
    assert found.classes[found.labels[5, 5] - 1] == 2
    assert found.classes[found.labels[5, 17] - 1] == 1


def test_untrained_networks_work_together():
    options = PromptNucSegOptions(prompter=SMALL, segmentor=SegmentorTraining(), window=64, overlap=16, num_negatives=1)
    parts = {"sam": build_sam(SIZES["small_patch8"], 0), "prompter": build_prompter(SMALL, 0)}
    parts["segmentor"] = build_sam(SIZES["small_patch8"], 1)
    segmenter = promptnucseg(parts, options, None)
    assert segmenter.model is parts["segmentor"]
    image = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    found = segmenter.segment(image)
    assert found.labels.shape == (70, 80)
    assert found.labels.max() == len(found.classes) == len(found.scores)
    assert len(found.points) == found.measured["prompts"]
    raw = promptnucseg(parts, options.model_copy(update={"segmentor": None}), None)
    assert raw.model is parts["sam"]


def test_parts_that_are_missing_are_named():
    options = PromptNucSegOptions(prompter=SMALL)
    with pytest.raises(UserError, match="needs 'sam'"):
        promptnucseg({}, options, None)
    with pytest.raises(UserError, match="no trained 'prompter'"):
        promptnucseg({"sam": build_sam(SIZES["small_patch8"], 0)}, options, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "prompts 'predicted' need a prompter"),
        ({"prompts": "oracle", "prompter": SMALL}, "the oracle's need none"),
        ({"prompter": SMALL, "num_classes": 2}, "num_classes 2, but the prompter has 3"),
        ({"prompter": SMALL.model_copy(update={"aux_weight": 0.0})}, "filter reads the foreground map"),
        ({"prompts": "oracle", "window": 64, "overlap": 64}, "overlap 64 is not below window 64"),
    ],
)
def test_options_that_contradict_each_other(values, message):
    with pytest.raises(ValueError, match=message):
        PromptNucSegOptions(**values)


def test_options_are_planned_without_torch_and_survive_a_job_file():
    values = {"prompter": SMALL.model_dump(mode="json"), "segmentor": {"num_negatives": 1}, "nms_iou": 0.3}
    options = parse_options(PATH, values)
    assert set(parts_of(options)) == {"prompter", "segmentor"}
    assert options.classes == 3
    assert parse_options(PATH, options.model_dump(mode="json")) == options
    assert options_class(PATH).__name__ == "PromptNucSegOptions"
    assert parse_options(SegmentorTraining.train, options.segmentor.model_dump(mode="json")) == options.segmentor


def test_segmenting_leaves_no_gradients():
    options = PromptNucSegOptions(prompts="oracle", window=64, overlap=16)
    segmenter = promptnucseg({"sam": build_sam(SIZES["small_patch8"], 0)}, options, None)
    image = np.zeros((64, 64, 3), np.uint8)
    segmenter.segment(image, Instances(np.eye(64, dtype=np.int32), np.zeros(1, np.int64)))
    assert all(p.grad is None for p in segmenter.model.parameters())
    assert torch.is_grad_enabled()
