"""What an example must be, and how many a method takes."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.segmentation.episodes.predictor import Example, checked

IMAGE = np.zeros((6, 8, 3), np.uint8)


def mask(*pixels):
    found = np.zeros((6, 8), bool)
    for pixel in pixels:
        found[pixel] = True
    return found


@pytest.mark.parametrize(
    ("image", "marked", "message"),
    [
        (IMAGE, mask(), "cat: its mask is empty"),
        (IMAGE, mask((1, 1))[:5], r"cat: its mask is \(5, 8\) bool, expected \(6, 8\)"),
        (IMAGE, mask((1, 1)).astype(np.uint8), "cat: its mask is .* uint8"),
        (IMAGE[..., 0], mask((1, 1)), r"cat: \(6, 8\) uint8, expected an image"),
        (IMAGE.astype(float), mask((1, 1)), r"cat: \(6, 8, 3\) float64"),
        (IMAGE[:0], mask((1, 1))[:0], "expected an image"),
    ],
)
def test_an_example_that_shows_nothing_or_does_not_fit_is_one_line(image, marked, message):
    with pytest.raises(DataError, match=message):
        Example(image, marked, "cat")


def test_more_examples_than_a_method_takes_are_one_line(by_shade):
    one = Example(IMAGE, mask((0, 0)))
    assert checked(by_shade(2), [one, one]) == [one, one]
    assert len(checked(by_shade(None), [one] * 50)) == 50
    with pytest.raises(DataError, match="3 examples, and this method takes at most 2"):
        checked(by_shade(2), [one] * 3)
    with pytest.raises(DataError, match="no example is given"):
        checked(by_shade(2), [])
