"""Matching of points: greedy by score, one truth each, a hard radius."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.segmentation.detection import Counts, class_counts, detection_counts, match_points, mean_class_f1


def loop_matches(predicted, scores, truth, radius):
    distances = np.linalg.norm(predicted[:, None] - truth[None], axis=2)
    taken = np.full(len(predicted), -1)
    for index in sorted(range(len(predicted)), key=lambda i: (-scores[i], i)):
        row = np.where(np.isin(np.arange(len(truth)), taken), np.inf, distances[index])
        if row.min() <= radius:
            taken[index] = row.argmin()
    return taken


@pytest.mark.parametrize("seed", range(6))
def test_matching_equals_the_loop_over_all_distances(seed):
    random = np.random.default_rng(seed)
    predicted, truth = random.uniform(0, 80, (40, 2)), random.uniform(0, 80, (30, 2))
    scores = random.integers(0, 10, 40) / 10
    found = match_points(predicted, scores, truth)
    np.testing.assert_array_equal(found, loop_matches(predicted, scores, truth, 12))
    hits = found[found >= 0]
    assert len(hits) == len(set(hits)) > 10


def test_the_surer_prediction_comes_first_and_the_next_takes_the_nearest_free():
    truth = np.array([[10.0, 10], [18, 10]])
    predicted = np.array([[11.0, 10], [10, 10], [50, 50]])
    np.testing.assert_array_equal(match_points(predicted, np.array([0.9, 0.5, 1]), truth), [0, 1, -1])
    np.testing.assert_array_equal(match_points(predicted, np.array([0.5, 0.9, 1]), truth), [1, 0, -1])
    # 8 px to the second: outside a radius of 7, the second prediction of the first nucleus is false.
    np.testing.assert_array_equal(match_points(predicted, np.array([0.9, 0.5, 1]), truth, 7), [0, -1, -1])


def test_the_radius_is_inclusive():
    assert match_points(np.zeros((1, 2)), np.ones(1), np.array([[0.0, 12]])) == [0]
    assert match_points(np.zeros((1, 2)), np.ones(1), np.array([[0.0, 12.01]])) == [-1]


def test_counts_add_up_before_they_become_rates():
    total = sum([Counts(8, 2, 0), Counts(0, 0, 10)], Counts())
    assert (total.precision, total.recall) == (0.8, 8 / 18)
    assert total.f1 == pytest.approx(2 * 0.8 * (8 / 18) / (0.8 + 8 / 18))


def test_images_without_points():
    points, none = np.array([[0.0, 0], [50, 50]]), np.zeros((0, 2))
    assert detection_counts(none, none[:, 0], points) == Counts(0, 0, 2)
    assert detection_counts(points, np.ones(2), none) == Counts(0, 2, 0)
    empty = detection_counts(none, none[:, 0], none)
    assert np.isnan([empty.precision, empty.recall, empty.f1]).all()


def test_classes_are_matched_apart_and_absent_ones_do_not_count():
    points = np.array([[0.0, 0], [40, 40]])
    counts = class_counts(points, np.ones(2), np.array([0, 1]), points, np.array([0, 0]), num_classes=3)
    assert counts == [Counts(1, 0, 1), Counts(0, 1, 0), Counts()]
    assert mean_class_f1(counts) == pytest.approx((2 / 3 + 0) / 2)
    assert np.isnan(mean_class_f1([Counts()]))


def test_bad_input_is_one_line():
    with pytest.raises(DataError, match=r"predicted points are \(2, 3\)"):
        match_points(np.zeros((2, 3)), np.ones(2), np.zeros((2, 2)))
    with pytest.raises(DataError, match="2 predicted points and 3 scores"):
        match_points(np.zeros((2, 2)), np.ones(3), np.zeros((2, 2)))
