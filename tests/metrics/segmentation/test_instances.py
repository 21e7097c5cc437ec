"""AJI, PQ and Dice against loops over pairs of masks, and what they are in the cases one can compute by hand."""

import itertools

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.segmentation import instances
from shared.metrics.segmentation.instances import (
    aji,
    aji_plus,
    dice,
    ensemble_dice,
    overlaps,
    panoptic_quality,
)


def random_maps(seed, size=40, num=9):
    """Discs, and discs that have moved, with ids that have gaps."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    truth, predicted = np.zeros((2, size, size), np.int32)
    for number in range(1, num):
        y, x, r = random.uniform(0, size), random.uniform(0, size), random.uniform(2, 8)
        truth[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = 3 * number
        y, x = y + random.normal(0, 2), x + random.normal(0, 2)
        if random.random() < 0.8:
            predicted[(rows - y) ** 2 + (columns - x) ** 2 < (r * random.uniform(0.7, 1.2)) ** 2] = 7 * number + 2
    return truth, predicted


def loop_metrics(truth, predicted):
    """All metrics by their definitions, mask by mask; AJI+ over every assignment."""
    g = [truth == i for i in np.unique(truth) if i]
    p = [predicted == i for i in np.unique(predicted) if i]
    inter = np.array([[(a & b).sum() for b in p] for a in g]).reshape(len(g), len(p))
    union = np.array([[(a | b).sum() for b in p] for a in g]).reshape(len(g), len(p))
    ious = inter / union
    pairs = [(i, int(row.argmax())) for i, row in enumerate(ious) if row.max() > 0]
    hits = ious[ious > 0.5]
    dq = len(hits) / (len(hits) + (len(p) - len(hits)) / 2 + (len(g) - len(hits)) / 2)
    sq = hits.sum() / (len(hits) + 1e-6)
    both = [(i, j) for i in range(len(g)) for j in range(len(p)) if inter[i, j]]
    sizes = sum(g[i].sum() + p[j].sum() for i, j in both)
    foreground = 2 * ((truth > 0) & (predicted > 0)).sum() / ((truth > 0).sum() + (predicted > 0).sum())
    return {
        "aji": jaccard(g, p, inter, union, pairs),
        "dq": dq,
        "sq": sq,
        "pq": dq * sq,
        "dice": foreground,
        "ensemble": 2 * sum(inter[i, j] for i, j in both) / sizes,
    }, (g, p, inter, union, ious)


def jaccard(g, p, inter, union, pairs):
    top = sum(inter[i, j] for i, j in pairs)
    bottom = sum(union[i, j] for i, j in pairs)
    bottom += sum(mask.sum() for i, mask in enumerate(g) if i not in {i for i, _ in pairs})
    bottom += sum(mask.sum() for j, mask in enumerate(p) if j not in {j for _, j in pairs})
    return top / bottom


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dense", [True, False])
def test_metrics_equal_the_loops_over_masks(seed, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(instances, "_DENSE", 0)
    truth, predicted = random_maps(seed, size=24 if seed % 2 else 40)
    table = overlaps(truth, predicted)
    expected, (_, _, inter, union, _) = loop_metrics(truth, predicted)
    quality = panoptic_quality(table)
    found = {"aji": aji(table), "dq": quality.dq, "sq": quality.sq, "pq": quality.pq, "dice": dice(table)}
    found["ensemble"] = ensemble_dice(table)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert table.pixels.sum() == inter.sum()
    np.testing.assert_array_equal(table.unions, union[table.truth, table.predicted])


@pytest.mark.parametrize("seed", range(6))
def test_aji_plus_is_the_best_one_to_one_assignment(seed):
    truth, predicted = random_maps(seed, size=20, num=6)
    _, (g, p, inter, union, ious) = loop_metrics(truth, predicted)
    short, long = sorted((len(g), len(p)))
    best = max(
        (
            [(i, j) if len(g) <= len(p) else (j, i) for i, j in enumerate(chosen)]
            for chosen in itertools.permutations(range(long), short)
        ),
        key=lambda pairs: sum(ious[i, j] for i, j in pairs),
    )
    pairs = [(i, j) for i, j in best if inter[i, j]]
    assert aji_plus(overlaps(truth, predicted)) == pytest.approx(jaccard(g, p, inter, union, pairs))


def test_a_perfect_prediction_scores_one_under_any_ids():
    truth, _ = random_maps(1)
    table = overlaps(truth, np.where(truth > 0, 1000 - truth, 0))
    assert aji(table) == aji_plus(table) == dice(table) == ensemble_dice(table) == 1
    assert panoptic_quality(table).pq == pytest.approx(1, abs=1e-6)


def test_an_instance_in_two_halves_is_no_hit():
    """IoU is 0.5 each, and the rule is > 0.5."""
    truth = np.zeros((10, 10), int)
    truth[2:8, 2:8] = 1
    predicted = truth.copy()
    predicted[2:8, 5:8] = 2
    table = overlaps(truth, predicted)
    assert panoptic_quality(table).pq == 0
    assert aji(table) == 18 / (36 + 18)  # one half is taken, the other is left over
    assert dice(table) == 1
    assert ensemble_dice(table) == 2 * 36 / (2 * (36 + 18))


def test_one_prediction_over_two_instances_is_taken_twice_by_aji_and_once_by_aji_plus():
    truth = np.zeros((4, 8), int)
    truth[:, :4], truth[:, 4:] = 1, 2
    table = overlaps(truth, np.ones_like(truth))
    assert aji(table) == 32 / 64
    assert aji_plus(table) == 16 / (32 + 16)


@pytest.mark.parametrize("seed", range(8))
def test_aji_is_at_most_the_iou_of_the_foregrounds(seed):
    truth, predicted = random_maps(seed)
    foreground = ((truth > 0) & (predicted > 0)).sum() / ((truth > 0) | (predicted > 0)).sum()
    assert aji(overlaps(truth, predicted)) <= foreground + 1e-12


def test_maps_without_background_need_no_special_care():
    truth = np.array([[5, 5, 9], [5, 9, 9]])
    predicted = np.array([[4, 4, 4], [4, 2, 2]])
    table = overlaps(truth, predicted)
    np.testing.assert_array_equal(table.truth_areas, [3, 3])
    np.testing.assert_array_equal(table.predicted_areas, [2, 4])
    assert panoptic_quality(table).dq == 1
    assert overlaps(np.ones((2, 2), int), np.ones((2, 2), int)).iou.tolist() == [1.0]


def test_without_truth_all_is_undefined_and_without_predictions_zero():
    some, none = np.eye(4, dtype=int), np.zeros((4, 4), int)
    for predicted in (some, none):
        table = overlaps(none, predicted)
        values = [
            aji(table),
            aji_plus(table),
            dice(table),
            ensemble_dice(table),
            *vars(panoptic_quality(table)).values(),
        ]
        assert np.isnan(values).all()
    table = overlaps(some, none)
    values = [aji(table), aji_plus(table), dice(table), ensemble_dice(table), *vars(panoptic_quality(table)).values()]
    assert values == [0] * 7


def test_bad_maps_are_one_line():
    labels = np.ones((3, 3), int)
    with pytest.raises(DataError, match=r"predicted label map: float64 \(3, 3\), expected integers"):
        overlaps(labels, labels / 2)
    with pytest.raises(DataError, match="true label map: id -1"):
        overlaps(-labels, labels)
    with pytest.raises(DataError, match=r"true label map is \(3, 3\), predicted one \(2, 3\)"):
        overlaps(labels, labels[:2])
