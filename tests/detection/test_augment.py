"""Augmentation: image, boxes and masks move together; sizes and places are drawn as the recipe says."""

import numpy as np
import pytest
from pydantic import ValidationError

from shared.detection.augment import augment, flip, random_flip, random_window
from shared.detection.examples import Example, tight_boxes
from shared.detection.options import MultiScale, NoAugment, ScaleJitter
from shared.detection.scenes import make_scenes

SMALL = MultiScale(crop_shorts=[40, 60], crop_sides=(30, 50), shorts=[48, 64, 80], longest=100)


@pytest.fixture(scope="module")
def scene():
    """A scene whose image shows its masks: object k has the grey level 60 k."""
    objects = make_scenes(8, 0).objects[1]
    image = np.zeros((64, 64, 3), np.uint8)
    for number, mask in enumerate(objects.masks, 1):
        image[mask] = 60 * number
    return Example(image, tight_boxes(objects.masks), objects.classes, objects.masks)


def test_mirror_twice_is_nothing(scene):
    once, twice = flip(scene), flip(flip(scene))
    np.testing.assert_array_equal(once.boxes, tight_boxes(once.masks))
    np.testing.assert_array_equal(once.image, scene.image[:, ::-1])
    for name in ("image", "boxes", "classes", "masks"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(scene, name))


def test_mirror_has_its_probability(scene):
    rng = np.random.default_rng(0)
    share = np.mean([random_flip(scene, 0.3, rng) is not scene for _ in range(500)])
    assert abs(share - 0.3) < 0.07
    assert augment(scene, NoAugment(flip=0), rng) is scene
    assert augment(scene, NoAugment(flip=1), rng) is not scene


@pytest.mark.parametrize("options", [SMALL, SMALL.model_copy(update={"recompute_boxes": True}), ScaleJitter(size=96)])
def test_image_boxes_and_masks_move_together(scene, options):
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(40):
        found = augment(scene, options, rng)
        assert found.masks.shape[1:] == found.image.shape[:2]
        assert len(found.boxes) == len(found.classes) == len(found.masks)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (sides > 0).all()
        for kind, box, mask in zip(found.classes, found.boxes, found.masks, strict=True):
            seen += 1
            level = 60 * (1 + next(k for k, c in enumerate(scene.classes) if c == kind))
            if (scene.classes == kind).sum() == 1 and mask.sum() > 500:
                assert abs(np.median(found.image[mask]) - level) < 8
            tight = tight_boxes(mask[None])[0]
            if options.recompute_boxes:
                np.testing.assert_array_equal(box, tight)
            else:
                assert (box[:2] <= tight[:2] + 2).all()  # a rounded pixel, enlarged once more
                assert (box[2:] >= tight[2:] - 2).all()
    assert seen > 40


def test_several_scales(scene):
    rng = np.random.default_rng(0)
    plain = SMALL.model_copy(update={"crop": 0.0})
    shapes = {augment(scene, plain, rng).image.shape[:2] for _ in range(40)}
    assert shapes == {(48, 48), (64, 64), (80, 80)}
    cropped = [augment(scene, SMALL.model_copy(update={"crop": 1.0}), rng).image.shape[:2] for _ in range(60)]
    assert {min(shape) for shape in cropped} <= {48, 64, 80, *range(40, 80)}
    assert max(max(shape) for shape in cropped) == 100
    assert len({max(s) / min(s) for s in cropped}) > 20


def test_windows_are_inside_and_reach_the_edges():
    rng = np.random.default_rng(0)
    windows = [random_window((70, 45), (30, 50), rng) for _ in range(400)]
    heights, widths = {w.height for w in windows}, {w.width for w in windows}
    assert (min(heights), max(heights)) == (30, 50)
    assert (min(widths), max(widths)) == (30, 45)  # at most the picture's own
    assert min(w.top for w in windows) == min(w.left for w in windows) == 0
    assert max(w.top + w.height for w in windows) == 70
    assert max(w.left + w.width for w in windows) == 45
    assert random_window((20, 20), (30, 50), rng) == (0, 0, 20, 20)


def test_scale_jitter_fills_a_square_or_pads_it(scene):
    rng = np.random.default_rng(0)
    small = augment(scene, ScaleJitter(size=100, scales=(0.5, 0.5), flip=0), rng)
    assert small.image.shape == (100, 100, 3)
    assert (small.image[50:] == 128).all()
    assert small.boxes.max() <= 50
    whole = augment(scene, ScaleJitter(size=100, scales=(1.0, 1.0), flip=0), rng)
    assert abs(whole.masks.sum() / small.masks.sum() - 4) < 0.2
    large = augment(scene, ScaleJitter(size=100, scales=(2.0, 2.0), flip=0), rng)
    assert not (large.image[-1] == 128).all()


def test_very_long_pictures_survive(squares):
    mask = squares((8, 3000), 2, 1000, 4)
    given = Example(np.zeros((8, 3000, 3), np.uint8), tight_boxes(mask[None]), np.zeros(1, np.int64), mask[None])
    rng = np.random.default_rng(0)
    for options in (MultiScale(), ScaleJitter()):
        for _ in range(5):
            found = augment(given, options, rng)
            assert min(found.image.shape[:2]) >= 1
            assert max(found.image.shape[:2]) <= 1333


def test_a_picture_without_objects_stays_one():
    empty = Example(
        np.zeros((50, 70, 3), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros((0, 50, 70), bool),
    )
    for options in (NoAugment(flip=1), SMALL, ScaleJitter(size=64)):
        found = augment(empty, options, np.random.default_rng(0))
        assert found.boxes.shape == (0, 4)
        assert found.masks.shape == (0, *found.image.shape[:2])


def test_options_that_make_no_sense():
    with pytest.raises(ValidationError, match="crop_sides must rise"):
        MultiScale(crop_sides=(60, 50))
