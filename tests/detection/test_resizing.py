"""Resized pictures, masks and boxes agree with each other, and a window with the whole."""

import numpy as np
import pytest

from shared.detection.examples import Example, tight_boxes
from shared.detection.options import FixedSize, SameSize, ShortSide
from shared.detection.resizing import input_image, input_size, resized, resized_image, short_side
from shared.errors import DataError
from shared.segmentation.resize import Window


def example(squares, shape=(40, 60)):
    masks = np.stack([squares(shape, 4, 6, 10), squares(shape, 20, 30, 15)])
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    return Example(image, tight_boxes(masks), np.array([0, 2]), masks)


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((300, 1000), 800, 1333, (400, 1333)),
        ((40, 4000), 800, 1333, (13, 1333)),
        ((1, 5000), 800, 1333, (1, 1333)),
        ((600, 400), 500, None, (750, 500)),
    ],
)
def test_shorter_side_within_the_longest(size, short, longest, expected):
    assert short_side(*size, short, longest) == expected
    assert short_side(*size[::-1], short, longest) == expected[::-1]


def test_a_picture_of_a_picture_of_its_own_size_is_itself(squares):
    found = resized(example(squares), (40, 60))
    np.testing.assert_array_equal(found.image, example(squares).image)
    np.testing.assert_array_equal(found.masks, example(squares).masks)
    np.testing.assert_array_equal(found.boxes, example(squares).boxes)


def test_a_whole_factor_repeats_masks_and_scales_boxes(squares):
    found = resized(example(squares), (80, 180))
    np.testing.assert_array_equal(found.masks, example(squares).masks.repeat(2, 1).repeat(3, 2))
    np.testing.assert_array_equal(found.boxes, example(squares).boxes * [3, 2, 3, 2])
    np.testing.assert_array_equal(found.boxes, tight_boxes(found.masks))


@pytest.mark.parametrize("size", [(33, 47), (91, 143), (20, 30)])
def test_boxes_stay_within_half_a_pixel_of_the_masks(squares, size):
    found = resized(example(squares), size)
    assert np.abs(found.boxes - tight_boxes(found.masks)).max() <= 0.5 + 1e-5


def test_a_window_is_cut_from_the_whole(squares):
    window = Window(26, 21, 30, 40)
    whole, part = resized(example(squares), (70, 90)), resized(example(squares), (70, 90), window)
    # PIL computes coefficients of a box with its own rounding
    difference = part.image.astype(int) - whole.image[26:56, 21:61].astype(int)
    assert np.abs(difference).max() <= 2
    np.testing.assert_array_equal(part.masks, whole.masks[1:, 26:56, 21:61])  # the first object lies outside
    assert part.classes.tolist() == [2]
    np.testing.assert_allclose(part.boxes, [[45 - 21, 35 - 26, 61 - 21, 56 - 26]])


def test_recomputed_boxes_are_those_of_what_is_left(squares):
    shape = (40, 60)
    ring = squares(shape, 5, 5, 30) & ~squares(shape, 5, 15, 30)
    triangle = np.tril(np.ones(shape, bool))
    masks = np.stack([ring, triangle])
    given = Example(np.zeros((*shape, 3), np.uint8), tight_boxes(masks), np.array([0, 1]), masks)
    window = Window(0, 0, 10, 40)
    old, new = (resized(given, shape, window, recompute) for recompute in (False, True))
    assert old.boxes.tolist() == [[5, 5, 15, 10], [0, 0, 40, 10]]
    assert new.boxes.tolist() == [[5, 5, 15, 10], [0, 0, 10, 10]]  # the triangle is narrower at its top


def test_objects_whose_mask_vanishes_go(squares):
    shape = (64, 64)
    masks = np.stack([squares(shape, 0, 0, 40), squares(shape, 50, 51, 1)])
    given = Example(np.zeros((*shape, 3), np.uint8), tight_boxes(masks), np.array([0, 1]), masks)
    assert resized(given, (8, 8)).classes.tolist() == [0]


def test_pictures_without_pixels():
    with pytest.raises(DataError, match=r"cannot resize a picture of \(0, 5\) to 3x3"):
        resized_image(np.zeros((0, 5, 3), np.uint8), (3, 3))


def test_what_a_detector_looks_at(squares):
    image = example(squares).image
    assert input_size(40, 60, SameSize()) == (40, 60)
    assert input_size(40, 60, ShortSide(short=80, longest=100)) == (67, 100)
    assert input_size(40, 60, FixedSize(size=90)) == (60, 90)
    padded = input_image(image, FixedSize(size=90))
    assert padded.shape == (90, 90, 3)
    assert (padded[60:] == 128).all()
    assert (padded[:60] != 128).any()
    assert input_image(image, SameSize()) is not None
