"""Files of every mode, and damaged ones."""

import numpy as np
import pytest
from PIL import Image

from shared.errors import DataError
from shared.segmentation.pictures import read_image, read_labels, read_mask

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(image, path):
    image.save(path)
    return path


def test_every_mode_becomes_rgb(tmp_path):
    grey = np.repeat(GREY[..., None], 3, 2)
    colour = np.stack([GREY, 255 - GREY, GREY // 2], 2)
    alpha = np.full((6, 8, 1), 7, np.uint8)
    deep = GREY.astype(np.uint16) * 256 + 99
    cases = {
        "L": (Image.fromarray(GREY), grey),
        "LA": (Image.fromarray(np.concatenate([GREY[..., None], alpha], 2)), grey),
        "RGB": (Image.fromarray(colour), colour),
        "RGBA": (Image.fromarray(np.concatenate([colour, alpha], 2)), colour),
        "I;16": (Image.fromarray(deep), grey),
        "1": (Image.fromarray(GREY > 100), np.repeat((GREY > 100)[..., None] * np.uint8(255), 3, 2)),
        "P": (Image.fromarray(grey).quantize(48), grey),
    }
    for mode, (image, expected) in cases.items():
        found = read_image(saved(image, tmp_path / "x.png"))
        assert found.dtype == np.uint8, mode
        np.testing.assert_array_equal(found, expected, err_msg=mode)


def test_masks_of_every_mode_are_0_to_255(tmp_path):
    inside = GREY > 100
    red = np.zeros((6, 8, 3), np.uint8)
    red[inside, 0] = 255
    opaque = np.concatenate([red, np.full((6, 8, 1), 255, np.uint8)], 2)
    expected = inside * np.uint8(255)
    for image in (
        Image.fromarray(expected),
        Image.fromarray(inside.astype(np.uint8)),  # 0/1
        Image.fromarray(inside),
        Image.fromarray(red),
        Image.fromarray(opaque),
        Image.fromarray(expected.astype(np.uint16) * 257),
    ):
        np.testing.assert_array_equal(read_mask(saved(image, tmp_path / "m.png")), expected)
    np.testing.assert_array_equal(read_mask(saved(Image.fromarray(GREY), tmp_path / "m.png")), GREY)
    nothing = saved(Image.fromarray(np.zeros((6, 8), np.uint8)), tmp_path / "m.png")
    assert not read_mask(nothing).any()


def test_label_maps_keep_their_numbers(tmp_path):
    labels = (np.arange(48) * 700).reshape(6, 8)
    path = saved(Image.fromarray(labels.astype(np.uint16)), tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(path), labels)
    indexed = Image.fromarray((GREY // 50).astype(np.uint8))
    indexed.putpalette([9, 9, 9] * 256)
    np.testing.assert_array_equal(read_labels(saved(indexed, tmp_path / "p.png")), GREY // 50)
    with pytest.raises(DataError, match=r"rgb\.png: mode RGB, expected a label map"):
        read_labels(saved(Image.fromarray(GREY).convert("RGB"), tmp_path / "rgb.png"))


def test_damaged_and_foreign_files_are_one_line(tmp_path):
    big = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    path = saved(Image.fromarray(big), tmp_path / "x.png")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"x\.png: damaged image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    path.write_text("no picture")
    with pytest.raises(DataError, match=r"x\.png: damaged image"):
        read_mask(path)
    with pytest.raises(DataError, match=r"y\.png: no such file"):
        read_image(tmp_path / "y.png")
    real = saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "f.tif")
    with pytest.raises(DataError, match="floating point pixels"):
        read_mask(real)
