"""Types of microscopy images, in the layout of the Data Science Bowl."""

import numpy as np
import pytest

from shared.errors import ConfigError
from shared.segmentation.data import SplitSpec
from shared.segmentation.episodes.image_types import TypeClasses, image_type
from shared.segmentation.episodes.lists import draw_episodes
from shared.segmentation.episodes.spec import DrawSpec
from shared.segmentation.folders import InstanceFolders
from shared.segmentation.packed import PackedInstances, pack


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((10, 10, 10), "grey_dark_6x9"),
        ((200, 200, 200), "grey_light_6x9"),
        ((170, 150, 200), "colour_medium_6x9"),
        ((204, 200, 210), "colour_light_6x9"),
    ],
)
def test_size_colour_and_tone_make_the_type(colour, name):
    image = np.broadcast_to(np.array(colour, np.uint8), (6, 9, 3)).copy()
    image[0, 0] = 255 - image[0, 0]
    assert image_type(image) == name


@pytest.fixture
def packed(nuclei):
    return PackedInstances(*pack(InstanceFolders(nuclei[0])))


def test_an_image_type_is_a_class_whose_mask_is_all_nuclei(packed, nuclei):
    assert packed.names == ["a", "b", "c"]
    source = TypeClasses(packed, ["x", "x", "x"], least=2)
    assert source.members == [[0, 1]]  # c has no nucleus
    np.testing.assert_array_equal(source.view(1, 0).mask, nuclei[1]["b"] > 0)
    (one,) = draw_episodes(source, DrawSpec(rule="example"))
    assert {one.query, *one.examples} == {0, 1}


def test_types_with_few_images_are_left_out(packed):
    assert TypeClasses(packed, ["x", "y", "y"], least=1).classes == ["x", "y"]
    few = TypeClasses(packed, ["x", "y", "y"], least=2)
    assert (few.classes, len(few)) == ([], 3)
    with pytest.raises(ConfigError, match="no image shows any of the classes"):
        draw_episodes(few, DrawSpec(rule="example"))


def test_a_part_keeps_the_types_of_the_whole_set(packed):
    split = SplitSpec(part="train")
    source = TypeClasses(packed, ["x", "x", "x"], least=2, split=split)
    assert source.members == [[i for i in (0, 1) if split.has(packed.names[i])]]
