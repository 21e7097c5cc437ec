"""PanNuke's averages: what is undefined, what is free, and the order of the means."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.segmentation.pannuke import binary_pq, class_pq, pannuke_quality


def planes(*classes):
    """One 4x4 square an image plane where the flag is set: (C, 8, 8)."""
    maps = np.zeros((len(classes), 8, 8), int)
    for plane, present in zip(maps, classes, strict=True):
        plane[2:6, 2:6] = present
    return maps


def test_false_positives_of_absent_classes_are_free():
    truth = planes(1, 0, 0)
    np.testing.assert_allclose(class_pq(truth, planes(1, 1, 0)), [1, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(class_pq(truth, planes(0, 1, 0)), [0, np.nan, np.nan])
    assert np.isnan(binary_pq(truth[1], truth[0]))


def test_mpq_averages_classes_then_images_then_tissues():
    per_class = np.array([[1.0, 0.5, np.nan], [0.0, np.nan, np.nan], [0.2, 0.4, 0.6], [np.nan, np.nan, np.nan]])
    binary = np.array([0.8, 0.4, 0.5, np.nan])
    quality = pannuke_quality(binary, per_class, ["skin", "skin", "lung", "lung"])
    assert quality.tissues["skin"] == pytest.approx((0.6, 0.375))  # images: 0.75 and 0
    assert quality.tissues["lung"] == pytest.approx((0.5, 0.4))
    assert quality.bpq == pytest.approx(0.55)
    assert quality.mpq == pytest.approx(0.3875)
    np.testing.assert_allclose(quality.per_class, [0.4, 0.45, 0.6])


def test_a_tissue_without_nuclei_is_named_and_left_out():
    per_class = np.array([[1.0], [np.nan]])
    quality = pannuke_quality(np.array([1.0, np.nan]), per_class, ["skin", "lung"])
    assert quality.bpq == quality.mpq == 1
    assert np.isnan(quality.tissues["lung"]).all()


def test_bad_input_is_one_line():
    with pytest.raises(DataError, match="2 true and 3 predicted class planes"):
        class_pq(planes(1, 1), planes(1, 1, 1))
    with pytest.raises(DataError, match="1 bPQ, 2 class PQ and 2 tissues"):
        pannuke_quality(np.ones(1), np.ones((2, 5)), ["a", "b"])
