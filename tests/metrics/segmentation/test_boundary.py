"""Boundary IoU: the erosion definition, its limits, and batches."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from shared.errors import DataError
from shared.metrics.segmentation.boundary import boundary, boundary_distance, boundary_iou, shares_above
from shared.metrics.segmentation.iou import iou


def eroded_rim(mask, distance):
    """The definition: mask minus its erosion by 3x3 ones, `distance` times, outside the picture is 0."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance)


def blobs(num, height, width, seed):
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((num, height, width), bool)
    for mask in masks:
        for _ in range(4):
            y, x, r = random.uniform(0, height), random.uniform(0, width), random.uniform(2, 2 + height / 3)
            mask |= (rows - y) ** 2 + (columns - x) ** 2 < r * r
    return masks


def test_width_is_the_rounded_share_of_the_diagonal_and_at_least_one():
    assert boundary_distance(1024, 1024) == 29
    assert boundary_distance(64, 64) == 2
    assert boundary_distance(10, 10, 0.01) == 1
    assert boundary_distance(3000, 4000, 0.01) == 50


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (40, 63), (33, 64), (64, 65), (90, 200)])
@pytest.mark.parametrize("distance", [1, 2, 5, 31, 32, 33, 70])
def test_boundary_is_the_mask_without_its_erosion(shape, distance):
    masks = np.concatenate([blobs(3, *shape, seed=0), np.ones((1, *shape), bool), np.zeros((1, *shape), bool)])
    np.testing.assert_array_equal(boundary(masks, distance), [eroded_rim(mask, distance) for mask in masks])


def test_random_masks_over_word_borders():
    random = np.random.default_rng(0)
    for distance in (1, 3):
        masks = random.random((4, 50, 150)) > 0.02
        np.testing.assert_array_equal(boundary(masks, distance), [eroded_rim(mask, distance) for mask in masks])


def test_equals_opencv():
    cv2 = pytest.importorskip("cv2", reason="opencv is no dependency; install it to compare")
    for shape in ((64, 64), (300, 411)):
        distance = boundary_distance(*shape)
        for mask in blobs(4, *shape, seed=2):
            padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
            np.testing.assert_array_equal(boundary(mask, distance), mask.astype(np.uint8) - eroded > 0)


def test_iou_of_equal_disjoint_and_empty_masks():
    a, b = blobs(2, 60, 80, seed=1)
    none = np.zeros_like(a)
    assert boundary_iou(a, a) == 1
    assert boundary_iou(a, none) == 0
    assert np.isnan(boundary_iou(none, none))
    assert iou(a, a) == 1
    assert np.isnan(iou(none, none))
    assert boundary_iou(a, b) == boundary_iou(b, a)


def test_a_wide_boundary_makes_it_the_plain_iou():
    p, g = np.zeros((2, 100, 100), bool)
    p[20:29, 10:90] = True
    g[22:31, 15:95] = True
    # Half the shorter side of 9 is 4.5: a distance of 5 leaves no interior.
    share = 5 / np.hypot(100, 100)
    assert boundary_iou(p, g, share) == iou(p, g)
    assert boundary_iou(p, g, 1 / np.hypot(100, 100)) != iou(p, g)


def test_a_shift_costs_a_large_object_more_in_its_boundary():
    mask = np.zeros((200, 200), bool)
    mask[40:160, 40:160] = True
    shifted = np.roll(mask, 3, 1)
    assert boundary_iou(mask, shifted) < iou(mask, shifted) - 0.2


def test_a_batch_is_its_single_masks():
    p, g = blobs(12, 50, 70, seed=3).reshape(2, 3, 2, 50, 70)
    for metric in (iou, boundary_iou):
        values = metric(p, g)
        assert values.shape == (3, 2)
        for index in np.ndindex(3, 2):
            assert values[index] == metric(p[index], g[index])
    union = (p | g).sum((-2, -1))
    np.testing.assert_allclose(iou(p, g), (p & g).sum((-2, -1)) / union)


def test_shares_above_thresholds():
    values = np.array([0.4, 0.5, 0.7, np.nan, 0.9])
    np.testing.assert_allclose(shares_above(values, np.array([0.5, 0.7, 0.95])), [0.5, 0.25, 0])
    assert np.isnan(shares_above(np.array([np.nan]), np.array([0.5]))).all()


def test_bad_input_is_one_line():
    mask = np.ones((4, 4), bool)
    with pytest.raises(DataError, match="predicted masks are uint8, expected bool"):
        boundary_iou(mask.astype(np.uint8), mask)
    with pytest.raises(DataError, match=r"predicted masks are \(4, 4\), true masks \(4, 3\)"):
        iou(mask, mask[:, :3])
    with pytest.raises(DataError, match=r"masks are bool \(4,\)"):
        boundary(mask[0], 1)
