"""Resizing against torch; large-scale jitter: order, places, padding, and crops that lose the object."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared.errors import DataError
from shared.segmentation import jitter
from shared.segmentation.jitter import draw_window, flip, large_scale_jitter
from shared.segmentation.resize import Window, resize, resize_image


def torch_resize(x, size):
    return F.interpolate(torch.as_tensor(x, dtype=torch.float32)[None, None], size, mode="bilinear")[0, 0].numpy()


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (40, 9), (34, 46), (8, 60), (35, 3)])
def test_resize_is_torch_interpolation(size):
    x = np.random.default_rng(0).integers(0, 256, (17, 23), np.uint8)
    found = resize(x, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch_resize(x, size), atol=1e-3)
    image = np.stack([x, 255 - x, x], 2)
    np.testing.assert_allclose(resize(image, size, axis=0)[..., 1], 255 - found, atol=1e-3)
    np.testing.assert_array_equal(resize(x[None, None], size)[0, 0], found)


def test_a_window_is_cut_from_the_whole():
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    window = Window(5, 7, 11, 40)
    whole = resize_image(image, (31, 64))
    np.testing.assert_array_equal(resize_image(image, (31, 64), window), whole[5:16, 7:47])
    with pytest.raises(DataError, match=r"cannot resize \(0, 3\) to 4x4"):
        resize(np.zeros((0, 3)), (4, 4))


def test_flip_mirrors_both_with_its_probability():
    image, mask = np.arange(24, dtype=np.uint8).reshape(2, 4, 3), np.arange(8, dtype=np.uint8).reshape(2, 4)
    mirrored = flip(image, mask, np.random.default_rng(0), probability=1)
    np.testing.assert_array_equal(mirrored[0], image[:, ::-1])
    np.testing.assert_array_equal(mirrored[1], mask[:, ::-1])
    assert flip(image, mask, np.random.default_rng(0), probability=0)[0] is image
    rng = np.random.default_rng(0)
    share = np.mean([flip(image, mask, rng)[1][0, 0] != 0 for _ in range(400)])
    assert abs(share - 0.5) < 0.08


def test_scale_keeps_the_aspect_and_windows_stay_inside():
    rng = np.random.default_rng(0)
    scales, offsets = [], []
    for _ in range(500):
        (height, width), window = draw_window((60, 90), rng, 64, (0.1, 2.0))
        scales.append(width / 64)
        assert abs(height - width * 60 / 90) <= 1
        assert window.height == min(height, 64)
        assert 0 <= window.top <= height - window.height
        assert 0 <= window.left <= width - window.width
        if width > 64:
            offsets.append(window.left / (width - 64))
    assert min(scales) < 0.15
    assert max(scales) > 1.95
    assert abs(np.mean(scales) - 1.05) < 0.08
    assert min(offsets) == 0
    assert max(offsets) == 1


def test_small_scale_pads_right_and_bottom():
    image = np.full((20, 30, 3), 200, np.uint8)
    mask = np.full((20, 30), 255, np.uint8)
    picture, label = large_scale_jitter(image, mask, np.random.default_rng(0), 40, (0.5, 0.5))
    assert picture.shape == (40, 40, 3)
    assert (picture.dtype, label.dtype) == (np.uint8, np.float32)
    assert (picture[:13, :20] == 200).all()
    assert (label[:13, :20] == 255).all()
    assert (picture[13:] == 128).all()
    assert (picture[:, 20:] == 128).all()
    assert label[13:].max() == label[:, 20:].max() == 0


def test_labels_stay_soft_and_follow_the_image():
    mask = np.zeros((50, 50), np.uint8)
    mask[10:30, 15:40] = 255
    image = np.repeat(mask[..., None], 3, 2)
    rng = np.random.default_rng(3)
    for _ in range(10):
        picture, label = large_scale_jitter(image, mask, rng, 64, (0.5, 2.0))
        inside = picture[..., 0] != 128
        np.testing.assert_allclose(picture[inside, 0], np.floor(label[inside]))
    assert len(np.unique(label)) > 2


def test_a_crop_without_the_object_is_drawn_again():
    mask = np.zeros((64, 64), np.uint8)
    mask[2:6, 2:6] = 255
    image = np.zeros((64, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(60):
        full, window = draw_window(mask.shape, rng, 64, (1.5, 2.0))
        lost += not (resize(mask, full, window) > 128).any()
    assert lost > 20  # so that the next lines say something
    for _ in range(30):
        assert (large_scale_jitter(image, mask, rng, 64, (1.5, 2.0))[1] > 128).any()


def test_objects_that_cannot_be_kept(monkeypatch):
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    with pytest.raises(DataError, match="without object"):
        large_scale_jitter(image, mask, np.random.default_rng(0), 64)
    mask[63, 63] = 255
    monkeypatch.setattr(jitter, "_MOST_DRAWS", 0)
    assert large_scale_jitter(image, mask, np.random.default_rng(0), 64)[1][63, 63] == 255  # the whole picture
    with pytest.raises(DataError, match=r"an object of 1 pixels in \(64, 64\) vanishes at 8 pixels"):
        large_scale_jitter(image, mask, np.random.default_rng(0), 8)


def test_the_seed_decides():
    mask = np.full((30, 40), 255, np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    first, second, other = (large_scale_jitter(image, mask, np.random.default_rng(s), 32)[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
