"""Windows cover every pixel, every point is in one, and only masks that a neighbour can hold are dropped."""

import numpy as np
import pytest
import torch

from papers.promptnucseg.segmentor.tiles import cut_off, inside, windows
from shared.errors import DataError
from shared.segmentation.resize import Window


@pytest.mark.parametrize("shape", [(1000, 1000), (500, 600), (256, 256), (257, 300), (100, 900), (40, 30)])
def test_windows_cover_every_pixel(shape):
    count = np.zeros(shape, int)
    for window in windows(*shape, 256, 64):
        assert (window.height, window.width) == (min(256, shape[0]), min(256, shape[1]))
        assert window.top + window.height <= shape[0]
        assert window.left + window.width <= shape[1]
        count[window.top : window.top + window.height, window.left : window.left + window.width] += 1
    assert count.min() == 1


def test_neighbours_overlap_and_the_last_one_is_flush():
    found = windows(256, 1000, 256, 64)
    assert [window.left for window in found] == [0, 192, 384, 576, 744]
    assert [window.left for window in windows(256, 448, 256, 64)] == [0, 192]  # fits exactly: no window twice
    assert windows(256, 256, 256, 64) == [Window(0, 0, 256, 256)]


def test_an_overlap_of_a_whole_window_is_refused():
    with pytest.raises(DataError, match="windows of 64 pixels cannot overlap by 64"):
        windows(100, 100, 64, 64)


def test_every_point_is_in_a_window_also_on_the_far_sides():
    shape = (50, 70)
    points = np.random.default_rng(0).uniform(0, [70, 50], (200, 2))
    points[:4] = [[69.9, 49.9], [70, 50], [0, 0], [-0.4, 49.6]]
    places = windows(*shape, 32, 8)
    hits = np.zeros(len(points), int)
    for window in places:
        hits[inside(points, window, shape)] += 1
    assert hits.min() == 1
    assert hits.max() == 4  # where two rows and two columns of windows overlap
    assert len(inside(np.zeros((0, 2)), places[0], shape)) == 0


def test_a_window_ends_with_its_last_pixel():
    left, right = windows(32, 56, 32, 8)
    points = np.array([[31.9, 5], [32, 5], [24, 5], [23.9, 5]])
    assert inside(points, left, (32, 56)).tolist() == [0, 2, 3]
    assert inside(points, right, (32, 56)).tolist() == [0, 1, 2]


def test_masks_near_an_inner_side_are_cut_off_and_those_at_the_image_s_side_are_not():
    shape, window = (256, 448), Window(0, 192, 256, 256)  # right half of two windows
    boxes = torch.tensor(
        [
            [8, 0, 40, 30],  # touches the image's top, 8 px from the inner side
            [7, 50, 40, 80],
            [0, 50, 40, 80],
            [200, 50, 255, 80],  # ends with the image
            [100, 225, 140, 255],
        ]
    )
    assert cut_off(boxes, window, shape, 7).tolist() == [False, True, True, False, False]
    left = Window(0, 0, 256, 256)
    near = torch.tensor([[200, 50, 248, 80], [200, 50, 249, 80]])  # 8 and 7 px from the side at 256
    assert cut_off(near, left, shape, 7).tolist() == [False, True]
    assert not cut_off(boxes, window, shape, None).any()
    whole = Window(0, 0, 256, 448)
    assert not cut_off(boxes, whole, shape, 7).any()
