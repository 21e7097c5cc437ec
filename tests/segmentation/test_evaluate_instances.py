"""Instance evaluation: a perfect segmenter, values by hand, average precision against scikit-learn."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from shared.errors import DataError
from shared.metrics.segmentation.instances import aji, aji_plus, dice, ensemble_dice, overlaps, panoptic_quality
from shared.segmentation.context import Context
from shared.segmentation.evaluate.instances import average_precision, evaluate_instances
from shared.segmentation.evaluate.spec import InstancesSpec
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.predictors import Segmented
from shared.segmentation.samples import Instances, Sample

DATA = {"kind": "generated", "manifest": "touching_nuclei", "part": "test"}
CLASSES = ["Dead", "Epithelial", "Connective"]


class Listed:
    def __init__(self, samples):
        self.samples = samples
        self.names = [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def spec(**values):
    return InstancesSpec(data=DATA, **values)


def context(threads=1):
    return Context(torch.device("cpu"), 1, threads)


def segmented(labels, classes=None, points=None, scores=None, point_classes=None, num_classes=1, **measured):
    """A result whose points are the centroids of its instances unless they are given."""
    num = int(labels.max(initial=0))
    classes = np.zeros(num, np.int64) if classes is None else np.asarray(classes)
    points = centroids(Instances(labels, classes)) if points is None else np.array(points, np.float32).reshape(-1, 2)
    scores = np.ones(len(points)) if scores is None else np.array(scores)
    planes = None
    if num_classes > 1:
        of_id = np.concatenate([[-1], classes])[labels]
        planes = np.stack([np.where(of_id == c, labels, 0) for c in range(num_classes)])
    kinds = (
        (classes if len(points) == num else np.zeros(len(points), np.int64)) if point_classes is None else point_classes
    )
    return Segmented(labels, classes, np.ones(num), points, scores, np.asarray(kinds), planes, measured)


class Given:
    """Returns prepared results in turn, or the truth."""

    def __init__(self, results=None, num_classes=1):
        self.results, self.num_classes, self.calls = results, num_classes, 0

    def segment(self, image, oracle=None):
        if self.results is None:
            return segmented(oracle.labels, oracle.classes, num_classes=self.num_classes)
        self.calls += 1
        return self.results[self.calls - 1]


def scene(seed, size=60, num=8, num_classes=1):
    """Discs that overwrite each other."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number in range(1, num + 1):
        y, x, r = rng.uniform(5, size - 5), rng.uniform(5, size - 5), rng.uniform(4, 8)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = number
    known, index = np.unique(labels, return_inverse=True)
    labels = index.reshape(labels.shape).astype(np.int32)
    return Instances(labels, rng.integers(0, num_classes, len(known) - 1))


def sample(name, truth, group=""):
    rng = np.random.default_rng(0)
    return Sample(name, rng.integers(0, 256, (*truth.labels.shape, 3), np.uint8), truth, group)


def square_map(*corners, side=10, size=(40, 60)):
    labels = np.zeros(size, np.int32)
    for number, (top, left) in enumerate(corners, 1):
        labels[top : top + side, left : left + side] = number
    return labels


def test_a_perfect_segmenter_scores_one_in_everything():
    source = Listed([sample(f"s{i}", scene(i, num_classes=3), ["skin", "lung"][i % 2]) for i in range(6)])
    found = evaluate_instances(Given(num_classes=3), source, spec(classes=CLASSES, tissues=True, radius=3), context())
    expected = dict.fromkeys(
        ("AJI", "AJI_plus", "DQ", "SQ", "PQ", "Dice", "ensemble_Dice", "mAP_points", "bPQ", "mPQ"), 1.0
    )
    expected |= dict.fromkeys(("precision", "recall", "F1", "class_F1"), 100.0)
    expected |= {f"PQ_{name}": 1.0 for name in CLASSES}
    assert found.metrics == pytest.approx(expected, abs=1e-6)
    assert found.extras["tissues"] == {name: {"bPQ": 1.0, "mPQ": 1.0} for name in ("lung", "skin")}
    assert all(len(case.points["missed"]) == len(case.points["false"]) == 0 for case in found.cases)


def test_one_class_without_tissues_has_no_class_metrics():
    found = evaluate_instances(Given(), Listed([sample("a", scene(0))]), spec(), context())
    assert not {"bPQ", "mPQ", "class_F1", "PQ_nucleus"} & set(found.metrics)
    assert "tissues" not in found.extras


def test_values_are_means_of_the_metrics_over_images():
    truths, moved = [scene(i) for i in range(4)], []
    for truth in truths:
        labels = np.roll(truth.labels, 2, 1)
        labels[labels == 1] = 0
        known, index = np.unique(labels, return_inverse=True)
        moved.append(segmented(index.reshape(labels.shape).astype(np.int32)))
        assert known[0] == 0
    source = Listed([sample(str(i), truth) for i, truth in enumerate(truths)])
    found = evaluate_instances(Given(moved), source, spec(), context())
    tables = [overlaps(truth.labels, result.labels) for truth, result in zip(truths, moved, strict=True)]
    quality = [panoptic_quality(table) for table in tables]
    expected = {
        "AJI": [aji(table) for table in tables],
        "AJI_plus": [aji_plus(table) for table in tables],
        "DQ": [q.dq for q in quality],
        "SQ": [q.sq for q in quality],
        "PQ": [q.pq for q in quality],
        "Dice": [dice(table) for table in tables],
        "ensemble_Dice": [ensemble_dice(table) for table in tables],
    }
    assert found.per_image == expected
    for name, values in expected.items():
        assert found.metrics[name] == pytest.approx(np.mean(values))
        assert 0 < found.metrics[name] < 1


def test_counts_of_points_add_up_over_images():
    """2 of 3 true ones found by 3 points, then 1 of 1 by 2 points: P 3/5, R 3/4."""
    first, second = square_map((2, 2), (2, 20), (20, 30)), square_map((5, 5))
    near = [(7, 7), (25, 8), (50, 5)]  # x, y; the third is 20 pixels from the nearest
    results = [segmented(first, points=near), segmented(second, points=[(9, 9), (10, 10)])]
    source = Listed([sample("a", Instances(first, np.zeros(3, int))), sample("b", Instances(second, np.zeros(1, int)))])
    found = evaluate_instances(Given(results), source, spec(radius=5), context())
    assert found.metrics["precision"] == pytest.approx(60)
    assert found.metrics["recall"] == pytest.approx(75)
    assert found.metrics["F1"] == pytest.approx(100 * 2 * 0.6 * 0.75 / 1.35)
    case = found.cases[0]
    np.testing.assert_allclose(case.points["missed"], [[34, 24]])
    np.testing.assert_allclose(case.points["false"], [[50, 5]])
    assert len(case.points["hit"]) == 2


def test_a_point_of_the_wrong_class_hits_for_detection_alone():
    labels = square_map((2, 2), (2, 20))
    truth = Instances(labels, np.array([0, 1]))
    wrong = segmented(labels, [0, 0], num_classes=3)
    found = evaluate_instances(Given([wrong]), Listed([sample("a", truth)]), spec(classes=CLASSES), context()).metrics
    assert found["F1"] == 100
    # Class 0: one hit, one false alarm; class 1: one miss; class 2 does not occur.
    assert found["class_F1"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found["mAP_points"] == pytest.approx((0.5 + 0) / 2)
    assert found["PQ"] == pytest.approx(1, abs=1e-6)
    assert found["PQ_Dead"] == pytest.approx(1 / 1.5, abs=1e-6)
    assert found["PQ_Epithelial"] == 0
    assert "PQ_Connective" not in found  # nothing defines it
    assert found["mPQ"] == pytest.approx((1 / 1.5 + 0) / 2, abs=1e-6)


def test_class_planes_may_overlap_and_tissues_are_averaged_last():
    labels, over = square_map((2, 2), (2, 20)), square_map((2, 2), side=20)
    truth = Instances(labels, np.array([0, 1]))
    both = segmented(labels, [0, 1], num_classes=3)
    overlapping = Segmented(**{**vars(both), "planes": np.stack([both.planes[0], both.planes[1], over])})
    half = segmented(np.where(labels == 1, 1, 0).astype(np.int32), [0], num_classes=3)
    empty = segmented(np.zeros_like(labels), num_classes=3)
    groups, results = ["skin", "skin", "lung"], [overlapping, half, empty]
    source = Listed([sample(str(i), truth, group) for i, group in enumerate(groups)])
    found = evaluate_instances(Given(results), source, spec(classes=CLASSES, tissues=True), context()).metrics
    assert found["mPQ"] == pytest.approx((np.mean([1, 0.5]) + 0) / 2, abs=1e-6)  # false alarms of class 2 are free
    assert found["bPQ"] == pytest.approx((np.mean([1, 1 / 1.5]) + 0) / 2, abs=1e-6)
    assert found["PQ"] == pytest.approx(np.mean([1, 1 / 1.5, 0]), abs=1e-6)


def test_an_image_without_truth_is_left_out_of_means_but_its_points_count():
    empty = Instances(np.zeros((40, 60), np.int32), np.zeros(0, int))
    full = Instances(square_map((2, 2)), np.zeros(1, int))
    results = [segmented(square_map((20, 20))), segmented(full.labels)]
    found = evaluate_instances(Given(results), Listed([sample("a", empty), sample("b", full)]), spec(), context())
    assert found.metrics["AJI"] == 1
    assert math.isnan(found.per_image["AJI"][0])
    assert (found.metrics["precision"], found.metrics["recall"]) == (50, 100)
    json.dumps(found.extras, allow_nan=False)


def test_nothing_found_and_nothing_there():
    none = segmented(np.zeros((40, 60), np.int32))
    full = Instances(square_map((2, 2)), np.zeros(1, int))
    found = evaluate_instances(Given([none]), Listed([sample("a", full)]), spec(), context()).metrics
    assert found["AJI"] == found["PQ"] == found["recall"] == found["F1"] == found["mAP_points"] == 0
    assert "precision" not in found  # of no prediction
    empty = Instances(np.zeros((40, 60), np.int32), np.zeros(0, int))
    assert evaluate_instances(Given([none]), Listed([sample("a", empty)]), spec(), context()).metrics == {}


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_scikit_learns_where_every_centroid_is_found(seed):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(50), 1 if seed % 2 else 9)  # with and without equal scores
    hits = rng.random(50) < 0.6
    value = average_precision(scores, hits, int(hits.sum()))
    assert value == pytest.approx(average_precision_score(hits, scores))
    order = rng.permutation(50)
    assert average_precision(scores[order], hits[order], int(hits.sum())) == pytest.approx(value)
    # A centroid that nothing finds lowers every recall.
    assert average_precision(scores, hits, 2 * int(hits.sum())) == pytest.approx(value / 2)


def test_average_precision_by_hand():
    """Hit, miss, hit of 4: 1/1 at recall 1/4, 2/3 at 2/4."""
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 4) == pytest.approx(5 / 12)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 4) == 0
    assert math.isnan(average_precision(np.ones(2), np.zeros(2, bool), 0))


def test_a_methods_own_counts_are_summed_and_recorded():
    labels = square_map((2, 2))
    results = [segmented(labels, kept=3.0, dropped=1.0), segmented(labels, kept=4.0)]
    own = context()
    truth = Instances(labels, np.zeros(1, int))
    evaluate_instances(Given(results), Listed([sample("a", truth), sample("b", truth)]), spec(), own)
    assert {metric.name: metric.value for metric in own.measured} == {"kept": 7, "dropped": 1}


def test_reading_ahead_changes_nothing():
    source = Listed([sample(f"s{i}", scene(i)) for i in range(12)])
    one, many = (evaluate_instances(Given(), source, spec(), context(threads)) for threads in (1, 4))
    assert one.metrics == many.metrics
    assert [case.name for case in one.cases] == [case.name for case in many.cases]


@pytest.mark.parametrize(
    ("truth", "values", "message"),
    [
        (np.zeros((40, 60), np.uint8), {}, "a: its truth is no label map"),
        (
            Instances(square_map((2, 2)), np.array([2])),
            {},
            "a: has an instance of class 2, and evaluate.classes names 1",
        ),
        (Instances(square_map((2, 2)), np.array([0])), {"tissues": True}, "a: has no tissue to average by"),
    ],
)
def test_data_that_do_not_fit_are_one_line(truth, values, message):
    with pytest.raises(DataError, match=message):
        evaluate_instances(
            Given(), Listed([Sample("a", np.zeros((40, 60, 3), np.uint8), truth)]), spec(**values), context()
        )


def test_a_methods_fault_is_not_hidden():
    truth = Instances(square_map((2, 2)), np.zeros(1, int))
    source = Listed([sample("a", truth)])
    with pytest.raises(ValueError, match=r"a: label map \(4, 4\) of an image \(40, 60\)"):
        evaluate_instances(Given([segmented(np.zeros((4, 4), np.int32))]), source, spec(), context())
    with pytest.raises(ValueError, match="no class planes"):
        evaluate_instances(Given([segmented(truth.labels)]), source, spec(classes=CLASSES), context())
