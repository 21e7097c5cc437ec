"""Prompts of many masks at once against those drawn one by one."""

import numpy as np
import pytest
import torch

from shared.segmentation.object_prompts import drawn_pixels, object_boxes, point_prompts
from shared.segmentation.prompts import tight_boxes


@pytest.fixture
def masks():
    """Three blobs and a single pixel, (4, 9, 12)."""
    random = np.random.default_rng(0)
    masks = np.zeros((4, 9, 12), bool)
    masks[0, 2:7, 3:9] = random.random((5, 6)) < 0.6
    masks[1] = random.random((9, 12)) < 0.5
    masks[2, :, 11] = True
    masks[3, 8, 0] = True
    return masks


def test_boxes_are_those_of_the_numpy_code(masks):
    found = object_boxes(torch.from_numpy(masks))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), tight_boxes(masks))


def test_draws_take_pixels_in_reading_order(masks):
    for index, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        draws = (torch.arange(len(rows)) + 0.5)[None] / len(rows)
        found = drawn_pixels(torch.from_numpy(masks[index : index + 1]), draws)[0]
        np.testing.assert_array_equal(found.numpy(), np.stack([columns, rows], 1))


def test_the_largest_draw_stays_inside(masks):
    largest = torch.full((4, 1), np.nextafter(np.float32(1), np.float32(0)))
    for mask, (x, y) in zip(masks, drawn_pixels(torch.from_numpy(masks), largest)[:, 0].int().tolist(), strict=True):
        assert mask[y, x]


def test_every_object_pixel_is_as_likely(masks):
    draws = torch.rand(1, 20000, generator=torch.Generator().manual_seed(0))
    points = drawn_pixels(torch.from_numpy(masks[:1]), draws)[0].long()
    counts = np.bincount((points[:, 1] * 12 + points[:, 0]).numpy(), minlength=108)
    inside = masks[0].ravel()
    assert counts[~inside].sum() == 0
    expected = 20000 / inside.sum()
    assert np.abs(counts[inside] - expected).max() < 5 * expected**0.5


def test_object_points_have_label_1_and_nothing_is_added_without_background(masks):
    draws = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    points, labels = point_prompts(torch.from_numpy(masks), draws, 0.0)
    assert torch.equal(points, drawn_pixels(torch.from_numpy(masks), draws[:, :3]))
    assert torch.equal(labels, torch.ones(4, 3))


def test_a_background_point_comes_with_its_probability(masks):
    many = torch.from_numpy(masks[:1]).expand(4000, -1, -1)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(2))
    points, labels = point_prompts(many, draws, 0.3)
    assert points.shape == (4000, 2, 2)
    assert set(labels[:, 1].tolist()) == {0.0, -1.0}
    given = labels[:, 1] == 0
    assert abs(given.float().mean() - 0.3) < 0.03
    columns, rows = points[given, 1].long().unbind(1)
    assert not masks[0][rows, columns].any()
    assert (points[~given, 1] == 0).all()


def test_a_mask_without_outside_gets_no_background_point():
    _, labels = point_prompts(torch.ones(2, 4, 4, dtype=torch.bool), torch.full((2, 3), 0.01), 1.0)
    assert labels.tolist() == [[1, -1], [1, -1]]
