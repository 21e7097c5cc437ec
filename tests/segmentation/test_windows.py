"""Windows around objects: where they lie, what is seen in them, and boxes in their pixels."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.segmentation.data import ZoomSpec
from shared.segmentation.prompts import tight_boxes
from shared.segmentation.resize import Window, resize
from shared.segmentation.samples import FOREGROUND, Sample, instances_of
from shared.segmentation.windows import Windows, box_within, cut, inside, window_around

ZOOM = ZoomSpec(factor=2.0, least=8)


def box(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((20, 30, 29, 33), Window(22, 15, 20, 20)),  # 10 x 4 pixels: twice 10, centred
        ((20, 30, 21, 31), Window(27, 17, 8, 8)),  # 2 x 2: no smaller than `least`
        ((0, 0, 9, 9), Window(0, 0, 20, 20)),  # moved inside
        ((90, 40, 99, 49), Window(30, 80, 20, 20)),
        ((0, 5, 79, 9), Window(0, 0, 50, 100)),  # larger than the picture: all of it
        ((20.4, 30.0, 28.6, 33.0), Window(23, 16, 18, 18)),  # of a noisy box
    ],
)
def test_a_window_is_centred_as_far_as_the_picture_reaches(place, expected):
    assert window_around(box(*place), (50, 100, 3), ZOOM) == expected


def test_a_window_holds_its_box():
    rng = np.random.default_rng(0)
    for _ in range(200):
        x0, y0 = rng.integers(0, 60), rng.integers(0, 40)
        x1, y1 = rng.integers(x0, 60), rng.integers(y0, 40)
        found = window_around(box(x0, y0, x1, y1), (40, 60), ZoomSpec(factor=1.0, least=1))
        assert 0 <= found.top <= y0
        assert y1 < found.top + found.height <= 40
        assert 0 <= found.left <= x0
        assert x1 < found.left + found.width <= 60


def test_stretching_leaves_nothing_of_brightness_and_contrast():
    picture = np.random.default_rng(1).integers(0, 60, (9, 12, 3), np.uint8)
    picture[3, 4], picture[5, 6] = 0, 60
    window, zoom = Window(2, 3, 5, 6), ZoomSpec(stretch=True)
    seen = cut(picture, window, zoom)
    assert (seen.shape, seen.dtype, seen.min(), seen.max()) == ((5, 6, 3), np.uint8, 0, 255)
    np.testing.assert_array_equal(cut(picture * 3 + 7, window, zoom), seen)
    np.testing.assert_array_equal(cut(picture, window, ZoomSpec()), picture[2:7, 3:9])
    assert not cut(np.full((9, 12, 3), 40, np.uint8), window, zoom).any()


def test_a_box_in_its_window_is_the_box_of_the_enlarged_mask():
    mask = np.zeros((40, 40), np.uint8)
    mask[12:17, 20:30] = 255
    (tight,) = tight_boxes((mask > FOREGROUND)[None])
    window = window_around(tight, mask.shape, ZOOM)
    seen = resize(inside(mask, window), (4 * window.height, 4 * window.width))
    (expected,) = tight_boxes((seen > FOREGROUND)[None])
    np.testing.assert_array_equal(box_within(tight, window, 4 * window.width), expected)
    np.testing.assert_array_equal(box_within(box(0, 0, 39, 39), Window(0, 0, 40, 40), 64), [0, 0, 63, 63])


class One:
    """A source of a single sample."""

    names = ("a",)

    def __init__(self, image, truth):
        self.sample = Sample("a", image, truth)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.sample


def test_a_source_of_windows_keeps_names_and_whole_objects():
    image = np.random.default_rng(2).integers(0, 256, (30, 30, 3), np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    mask[20:26, 21:25] = 200
    windows = Windows(One(image, mask), ZOOM)
    assert (len(windows), list(windows.names)) == (1, ["a"])
    np.testing.assert_array_equal(windows[0].image, image[17:29, 17:29])
    np.testing.assert_array_equal(windows[0].truth, mask[17:29, 17:29])


def test_a_window_needs_one_object():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="several objects"):
        Windows(One(image, instances_of(np.eye(8, dtype=np.int32))), ZOOM)[0]
    with pytest.raises(DataError, match="is empty"):
        Windows(One(image, np.full((8, 8), FOREGROUND, np.uint8)), ZOOM)[0]
