"""Pasted masks against torch's own interpolation, boxes in the picture's pixels, and whole detectors on odd images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared.detection import detect as module
from shared.detection.detect import Detections, detect, paste, restore
from shared.detection.detector import Raw
from shared.detection.options import FixedSize, SameSize, ShortSide


def drawn(num=12, cells=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = F.interpolate(torch.rand(num, 1, 4, 4, generator=generator), (cells, cells), mode="bicubic")[:, 0]
    places = torch.rand(num, 2, generator=generator) * 40
    sides = torch.rand(num, 2, generator=generator) * 30 + 0.5
    return masks.clamp(0, 1), torch.cat([places, places + sides], 1)


def test_pasting_is_bilinear_at_pixel_centres():
    masks, boxes = drawn()
    height, width = 50, 70
    y = (torch.arange(height) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    x = (torch.arange(width) + 0.5 - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3)
    values = F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
    sure = (values - 0.5).abs() > 1e-4
    found = torch.from_numpy(paste(masks, boxes, height, width))
    assert torch.equal(found[sure], (values >= 0.5)[sure])
    assert found.any()


def test_a_full_mask_fills_its_box():
    boxes = torch.tensor([[3.0, 4, 13, 24], [0, 0, 70, 50]])
    found = paste(torch.ones(2, 28, 28), boxes, 50, 70)
    assert found[0].sum() == 10 * 20
    assert found[0, 4:24, 3:13].all()
    assert found[1].all()


def test_pasting_in_pieces_is_the_same(monkeypatch):
    masks, boxes = drawn()
    whole = paste(masks, boxes, 50, 70)
    monkeypatch.setattr(module, "_MOST_PIXELS", 50 * 70 * 5)
    np.testing.assert_array_equal(paste(masks, boxes, 50, 70), whole)
    assert paste(masks[:0], boxes[:0], 50, 70).shape == (0, 50, 70)


def raw(*boxes):
    num = len(boxes)
    return Raw(torch.tensor(boxes), torch.linspace(0.9, 0.1, num), torch.arange(num), torch.ones(num, 28, 28))


def test_boxes_return_to_the_pictures_pixels():
    """A picture of 50 x 100 seen at 25 x 50, and one box beyond its edge."""
    found = restore(raw([5.0, 5, 15, 20], [40, 20, 60, 30], [51, 3, 55, 5]), (50, 100), ShortSide(short=25, longest=99))
    np.testing.assert_allclose(found.boxes, [[10, 10, 30, 40], [80, 40, 100, 50]])
    assert found.classes.tolist() == [0, 1]
    assert found.masks.shape == (2, 50, 100)
    assert found.masks[0, 10:40, 10:30].all()
    assert found.masks[0].sum() == 600


def test_one_factor_for_both_sides_or_one_each():
    """A picture of 333 x 1000 pixels is seen at 341 x 1024: 1000 / 1024 across, 333 / 341 down."""
    given = raw([0.0, 0, 1024, 300])
    both = restore(given, (333, 1000), FixedSize())
    each = restore(given, (333, 1000), FixedSize(one_factor=False))
    np.testing.assert_allclose(both.boxes, [[0, 0, 1000, 300 * 1000 / 1024]], rtol=1e-6)
    np.testing.assert_allclose(each.boxes, [[0, 0, 1000, 300 * 333 / 341]], rtol=1e-6)


def test_those_above_a_score():
    found = restore(raw([0.0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7]), (20, 20), SameSize())
    assert found.above(0.4).classes.tolist() == [0, 1]
    assert len(found.above(0.95)) == 0


def test_pictures_of_any_shape_in_one_batch(detector, pixels):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*shape, 3), np.uint8) for shape in ((64, 64), (1, 120), (33, 40))]
    detector.roi_heads.score_thresh = 0.0
    found = detect(detector.train(), images, SameSize(), pixels)
    assert not detector.training
    for one, image in zip(found, images, strict=True):
        height, width = image.shape[:2]
        assert 0 < len(one) <= 20
        assert (np.diff(one.scores) <= 0).all()
        assert one.boxes.min() >= 0
        assert (one.boxes <= [width, height, width, height]).all()
        assert set(one.classes.tolist()) <= {0, 1, 2}
        assert one.masks.shape == (len(one), height, width)


def test_nothing_found_is_an_empty_result(detector, pixels):
    detector.roi_heads.score_thresh = 1.0
    found = detect(detector, [np.zeros((40, 50, 3), np.uint8)], SameSize(), pixels)
    assert isinstance(found[0], Detections)
    assert len(found[0]) == 0
    assert found[0].masks.shape == (0, 40, 50)


@pytest.mark.parametrize("size", [ShortSide(short=80, longest=100), FixedSize(size=96), SameSize()])
def test_a_picture_alone_or_with_equals_is_the_same(detector, pixels, size):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (64, 80, 3), np.uint8) for _ in range(3)]
    detector.roi_heads.score_thresh = 0.0
    alone = detect(detector, images[1:2], size, pixels)[0]
    among = detect(detector, images, size, pixels)[1]
    np.testing.assert_allclose(alone.boxes, among.boxes, atol=1e-3)
    np.testing.assert_allclose(alone.scores, among.scores, atol=1e-5)
