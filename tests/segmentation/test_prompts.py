"""Boxes, points and coarse masks: where they may lie, their law, and objects that have none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest

from shared.errors import DataError
from shared.segmentation.prompts import (
    coarse_masks,
    interior_points,
    noisy_boxes,
    random_points,
    tight_boxes,
    training_prompts,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def rectangle(top, bottom, left, right, shape=(40, 50)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_boxes_are_tight_with_the_last_index_inclusive():
    masks = np.stack([rectangle(3, 8, 10, 20), rectangle(0, 1, 49, 50), rectangle(0, 40, 0, 50)])
    np.testing.assert_array_equal(tight_boxes(masks), [[10, 3, 19, 7], [49, 0, 49, 0], [0, 0, 49, 39]])
    for seed in range(5):
        mask = rng(seed).random((30, 30)) > 0.98
        rows, columns = np.nonzero(mask)
        np.testing.assert_array_equal(
            tight_boxes(mask[None])[0], [columns.min(), rows.min(), columns.max(), rows.max()]
        )
    assert tight_boxes(np.zeros((0, 4, 4), bool)).shape == (0, 4)


def test_an_empty_mask_has_neither_box_nor_point():
    masks = np.stack([rectangle(3, 8, 10, 20), rectangle(0, 0, 0, 0)])
    for call in (tight_boxes, interior_points, lambda m: random_points(m, 1, rng())):
        with pytest.raises(DataError, match="mask 1 of 2 is empty"):
            call(masks)
    with pytest.raises(DataError, match="masks are uint8"):
        tight_boxes(masks.astype(np.uint8))


def test_box_noise_moves_centres_and_sides_within_its_scale():
    box = np.array([[400.0, 300, 500, 340]])
    boxes = np.repeat(box, 4000, 0)
    found = noisy_boxes(boxes, 0.4, (1024, 1024), rng())
    sides = found[:, 2:] - found[:, :2]
    shifts = (found[:, 2:] + found[:, :2]) / 2 - [450, 320]
    for axis, side in enumerate((100, 40)):
        assert kstest((sides[:, axis] / side - 0.6) / 0.8, "uniform").pvalue > 0.01
        assert kstest((shifts[:, axis] / (side / 2) + 0.4) / 0.8, "uniform").pvalue > 0.01
    np.testing.assert_array_equal(noisy_boxes(boxes, 0.0, (1024, 1024), rng()), boxes)
    edge = noisy_boxes(np.repeat([[0.0, 0, 63, 31]], 200, 0), 0.4, (32, 64), rng())
    assert edge.min() == 0
    assert edge[:, 2].max() == 64
    assert edge[:, 3].max() == 32
    with pytest.raises(DataError, match=r"box noise 1\.5"):
        noisy_boxes(boxes, 1.5, (32, 64), rng())


def test_random_points_are_distinct_uniform_pixels_of_the_mask():
    masks = np.stack([rectangle(3, 8, 10, 20), rectangle(30, 33, 0, 4)])
    points = random_points(masks, 12, rng())
    assert points.shape == (2, 12, 2)
    for mask, of_mask in zip(masks, points.astype(int), strict=True):
        assert mask[of_mask[:, 1], of_mask[:, 0]].all()
        assert len({tuple(point) for point in of_mask}) == 12
    generator = rng(1)
    drawn = np.concatenate([random_points(masks[1:], 4, generator)[0] for _ in range(600)]).astype(int)
    counts = np.bincount((drawn[:, 1] - 30) * 4 + drawn[:, 0], minlength=12)
    assert abs(counts - 200).max() < 60  # sd 11.5
    with pytest.raises(DataError, match="mask 1 has 12 pixels, 13 points"):
        random_points(masks, 13, rng())


def test_interior_point_is_the_centre_of_the_largest_disc():
    rows, columns = np.mgrid[:60, :80]
    disc = (rows - 20) ** 2 + (columns - 50) ** 2 < 15**2
    handle = rectangle(18, 22, 0, 50, (60, 80))
    points = interior_points(np.stack([disc | handle, rectangle(0, 5, 0, 9, (60, 80))]))
    np.testing.assert_array_equal(points[0], [50, 20])
    assert points[1][1] == 2  # the picture's edge is an edge
    assert 2 <= points[1][0] <= 6
    assert interior_points(np.ones((1, 1, 1), bool)).tolist() == [[0, 0]]


def torch_unsure(label, size):
    """|m - up(down(m))| >= 0.01 by torch."""
    m = F.interpolate(torch.as_tensor(label, dtype=torch.float32)[None, None] / 255, size, mode="bilinear")
    low = F.interpolate(m, size // 8, mode="bilinear")
    return m[0, 0].numpy(), (m - F.interpolate(low, size, mode="bilinear")).abs()[0, 0].numpy() >= 0.01


def test_coarse_masks_are_noisy_only_near_the_contour():
    label = rectangle(20, 100, 30, 110, (128, 160)) * np.uint8(255)
    found = coarse_masks(label[None], rng(), 64)[0]
    assert found.shape == (64, 64)
    assert found.dtype == np.float32
    assert set(np.unique(found)) == {0, 255}
    m, unsure = torch_unsure(label, 64)
    assert 0.02 < unsure.mean() < 0.9
    np.testing.assert_array_equal(found[~unsure] > 0, m[~unsure] > 0.5)
    # N(0, 1) against a distance of 0.5 from the threshold: P(wrong) = 0.309.
    flipped = np.mean([(coarse_masks(label[None], rng(s), 64)[0] > 0) != (m > 0.5) for s in range(40)], 0)
    sharp = unsure & ((m == 0) | (m == 1))
    assert abs(flipped[sharp].mean() - 0.309) < 0.02
    with pytest.raises(DataError, match="multiple of 8"):
        coarse_masks(label[None], rng(), 20)


def test_every_image_gets_one_prompt_of_uniform_kind():
    labels = np.stack([rectangle(3, 20, 10, 30)] * 300) * np.uint8(255)
    prompts = training_prompts(labels, rng(), num_points=10, mask_size=32)
    boxes = [p.box for p in prompts if p.box is not None]
    points = [p for p in prompts if p.points is not None]
    masks = [p.mask for p in prompts if p.mask is not None]
    assert len(boxes) + len(points) + len(masks) == 300
    assert min(len(boxes), len(points), len(masks)) > 70
    np.testing.assert_array_equal(boxes[0], [10, 3, 29, 19])
    assert points[0].points.shape == (10, 2)
    assert points[0].point_labels.tolist() == [1] * 10
    assert masks[0].shape == (32, 32)


def test_a_small_object_takes_points_from_the_whole_batch():
    labels = np.stack([rectangle(3, 20, 10, 30), rectangle(0, 3, 0, 3)] * 40) * np.uint8(255)
    assert all(prompt.points is None for prompt in training_prompts(labels, rng(), 10, 32))
    assert any(prompt.points is not None for prompt in training_prompts(labels, rng(), 9, 32))
    with pytest.raises(DataError, match="fewer than 10 pixels, and points are the only kind"):
        training_prompts(labels, rng(), 10, 32, ("points",))


def test_the_seed_decides():
    labels = np.stack([rectangle(3, 20, 10, 30)] * 8) * np.uint8(255)
    first, second = (training_prompts(labels, rng(4), mask_size=32) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        for name in ("box", "points", "mask"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
