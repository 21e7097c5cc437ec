"""Few-shot and DAVIS metrics by hand and against slow references."""

import math

import numpy as np
import pytest

from shared.errors import DataError
from shared.segmentation.episodes.metrics import ClassTotals, boundary_accuracy, outline, region_similarity


def square(top, left, side, size=(20, 20)):
    found = np.zeros(size, bool)
    found[top : top + side, left : left + side] = True
    return found


def test_pixels_of_a_class_are_summed_before_the_ratio():
    totals = ClassTotals()
    totals.add("a", square(0, 0, 4), square(0, 0, 4))  # 16 of 16
    totals.add("a", square(0, 0, 2), square(0, 0, 8))  # 4 of 64
    totals.add("b", square(0, 0, 3), square(10, 10, 3))  # 0 of 18
    assert totals.iou == {"a": 20 / 80, "b": 0.0}
    assert totals.mean_iou == pytest.approx(0.125)
    out = (400 - 16 + 400 - 64 + 400 - 18) / (400 - 16 + 400 - 4 + 400)
    assert totals.fb_iou == pytest.approx((20 / 98 + out) / 2)


def test_ignored_pixels_count_neither_way():
    found, truth = square(0, 0, 4), square(2, 2, 4)
    plain, ignoring = ClassTotals(), ClassTotals()
    ignoring.add("a", found, truth, ignored=square(4, 4, 2) | square(0, 0, 1))
    plain.add("a", found[:, 1:], truth[:, 1:])
    assert ignoring.iou["a"] == pytest.approx(4 / (28 - 5))
    everything = ClassTotals()
    everything.add("a", found, truth, np.ones((20, 20), bool))
    assert everything.iou["a"] == 0.0
    unmarked = ClassTotals()
    unmarked.add("a", found, truth, np.zeros((20, 20), bool))
    assert unmarked.iou["a"] == pytest.approx(4 / 28)


def test_perfect_masks_are_one_and_no_episode_is_nan():
    totals = ClassTotals()
    totals.add("a", square(1, 1, 5), square(1, 1, 5))
    assert totals.mean_iou == totals.fb_iou == 1
    assert math.isnan(ClassTotals().mean_iou)
    assert math.isnan(ClassTotals().fb_iou)


def test_the_order_of_episodes_does_not_matter_and_their_number_does():
    random = np.random.default_rng(0)
    episodes = [("ab"[int(random.integers(2))], *(random.random((2, 9, 9)) > 0.5)) for _ in range(12)]
    one, two = ClassTotals(), ClassTotals()
    for episode in episodes:
        one.add(*episode)
    for episode in reversed(episodes):
        two.add(*episode)
    assert one.iou == two.iou
    assert one.fb_iou == two.fb_iou


def test_region_similarity():
    assert region_similarity(square(0, 0, 4), square(2, 2, 4)) == pytest.approx(4 / 28)
    assert region_similarity(square(0, 0, 0), square(0, 0, 0)) == 1
    assert region_similarity(square(0, 0, 3), square(0, 0, 0)) == 0
    with pytest.raises(DataError, match="expected bool"):
        region_similarity(square(0, 0, 3).astype(int), square(0, 0, 3))


def reference_outline(mask):
    """Pixel by pixel, as the DAVIS toolkit's loop-free code says."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for row in range(height):
        for column in range(width):
            right = mask[row, column + 1] if column + 1 < width else None
            below = mask[row + 1, column] if row + 1 < height else None
            both = mask[row + 1, column + 1] if row + 1 < height and column + 1 < width else None
            others = [other for other in (right, below, both) if other is not None]
            if row + 1 == height:
                others = [right] if right is not None else []
            elif column + 1 == width:
                others = [below]
            found[row, column] = any(mask[row, column] != other for other in others)
    return found


def reference_boundary(found, truth, share):
    mine, true = np.argwhere(reference_outline(found)), np.argwhere(reference_outline(truth))
    if not len(mine) or not len(true):
        return float(len(mine) == len(true))
    reach = math.ceil(share * math.hypot(*truth.shape))
    distance = np.sqrt(((mine[:, None] - true[None]) ** 2).sum(-1))
    precision, recall = (distance.min(1) <= reach).mean(), (distance.min(0) <= reach).mean()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_boundary_accuracy_against_all_pairs_of_pixels():
    random = np.random.default_rng(1)
    for share in (0.008, 0.08):
        for _ in range(10):
            found, truth = (square(*random.integers(0, 14, 2), random.integers(1, 8)) for _ in range(2))
            found |= random.random((20, 20)) > 0.97
            np.testing.assert_array_equal(outline(found), reference_outline(found))
            assert boundary_accuracy(found, truth, share) == pytest.approx(reference_boundary(found, truth, share))


def test_boundary_accuracy_by_hand():
    truth = square(4, 4, 8)
    assert boundary_accuracy(truth, truth) == 1
    assert boundary_accuracy(square(5, 4, 8), truth) == 1  # ceil(0.008 * 28.3) is one pixel
    assert 0 < boundary_accuracy(square(7, 4, 8), truth) < 1
    assert boundary_accuracy(square(0, 0, 0), truth) == 0
    assert boundary_accuracy(truth, square(0, 0, 0)) == 0
    assert boundary_accuracy(square(0, 0, 0), square(0, 0, 0)) == 1
    assert boundary_accuracy(np.ones((20, 20), bool), np.zeros((20, 20), bool)) == 1  # neither has an outline
