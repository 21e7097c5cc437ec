"""The generated sets for in-context segmentation: shapes, hues, places, and ways through a clip."""

import colorsys

import numpy as np
import pytest
from scipy.ndimage import label

from shared.data.pull import pull
from shared.segmentation.generated import families
from shared.segmentation.generated.families import SHAPES, Figure, background, drawn_colour, grid_of, rgb
from shared.segmentation.generated.hue_scenes import moving, scattered
from shared.segmentation.generated.parts import HUE_FAMILIES, NO_CLASS, PARTS

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {
        name: {p.stem: np.load(p) for p in pull(name, root).glob("*.npy")} for name in ("hue_scenes", "hue_triples")
    }


def test_an_image_shows_different_families_in_its_labels(files):
    for name, side, numbers in (("hue_scenes", 48, {2, 3}), ("hue_triples", 32, {3})):
        for part in PARTS[name]:
            labels, classes = files[name][f"{part}_labels"], files[name][f"{part}_classes"]
            labels = labels[:, 0] if labels.ndim == 4 else labels
            assert labels.shape[1:] == (side, side)
            for scene, known in zip(labels, classes, strict=True):
                shown = known[known != NO_CLASS]
                assert len(set(shown)) == len(shown) == scene.max() == len(np.unique(scene)) - 1
                assert len(shown) in numbers
                assert shown.max() < len(HUE_FAMILIES)
                assert np.bincount(scene.ravel())[1:].min() >= 20


def test_families_are_equally_frequent_and_their_hues_far_apart(files):
    scenes = files["hue_triples"]
    classes = scenes["train_classes"]
    counts = np.bincount(classes.ravel(), minlength=8)
    assert counts.min() > 0.75 * counts.mean()
    for image, scene, known in zip(scenes["train_images"][:80], scenes["train_labels"], classes, strict=False):
        for number, family in enumerate(known.tolist(), 1):
            colour = image[scene == number].mean(0) / 255
            hue = 360 * colorsys.rgb_to_hsv(*colour)[0]
            assert abs((hue - 45 * family + 180) % 360 - 180) < 16
            assert colour.max() > 0.7
        assert image[scene == 0].mean() < 0.4 * 255


def test_rgb_is_that_of_the_colour_wheel():
    for hue in range(0, 360, 7):
        expected = colorsys.hsv_to_rgb(hue / 360, 0.7, 0.9)
        np.testing.assert_allclose(rgb(float(hue), 0.7, 0.9), expected, atol=1e-12)


def test_colours_of_a_family_vary_by_the_jitter():
    random = np.random.RandomState(0)
    hues = np.array([360 * colorsys.rgb_to_hsv(*drawn_colour(2, random))[0] for _ in range(300)])
    assert 78 <= hues.min() < 81
    assert 99 < hues.max() <= 102


def test_the_background_is_linear_between_its_values():
    field = background(48, np.random.RandomState(1))
    known = 0.4 * np.random.RandomState(1).random_sample((4, 4, 3))
    assert field.shape == (48, 48, 3)
    np.testing.assert_allclose(field[5:7, 5:7].mean((0, 1)), known[0, 0], atol=0.02)
    np.testing.assert_allclose(np.diff(field[10:12], axis=0), np.diff(field[11:13], axis=0), atol=1e-12)


@pytest.mark.parametrize("family", range(8))
def test_shapes_have_their_area_and_are_in_one_piece(family):
    radius = 14.0
    share = {
        "circle": np.pi,
        "square": 2.56,
        "triangle": 3 * np.sqrt(3) / 4,
        "plus": 2 * (4 / 3) - 4 / 9,
        "star": 5 * 0.45 * np.sin(np.pi / 5),
        "ring": 0.75 * np.pi,
        "bar": 4 / 3,
        "cut_disc": 0.75 * np.pi,
    }
    for angle in (-0.4, 0.1, 0.4):
        mask = Figure(family, np.array([20.0, 21.0]), radius, angle).mask(40)
        assert label(mask, EIGHT)[1] == 1
        expected = share[HUE_FAMILIES[family]] * radius**2
        points = SHAPES[HUE_FAMILIES[family]](grid_of(40), np.array([20.0, 21.0]), radius, angle)
        assert points.sum() / 4 == pytest.approx(expected, rel=0.02)
        # half of four points is enough for a pixel: a rim of an eighth of a pixel more
        assert 0 <= mask.sum() - points.sum() / 4 < 0.15 * expected
    assert set(SHAPES) == set(HUE_FAMILIES)


def test_figures_lie_inside_and_apart_whatever_the_room():
    random = np.random.RandomState(3)
    for _ in range(20):
        figures = scattered(3, 32, (5.0, 8.0), random)
        masks = np.array([figure.mask(32) for figure in figures])
        assert masks.sum(0).max() == 1
        assert all(
            5 <= f.radius <= 8 and f.radius <= f.centre.min() and f.centre.max() <= 32 - f.radius for f in figures
        )


def test_objects_of_a_clip_go_straight_on_and_keep_apart(files):
    frames = moving(2, 48, (6.0, 10.0), np.random.RandomState(2))
    for number in range(2):
        steps = np.diff([figures[number].centre for figures in frames], axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape))
        assert np.abs(steps).max() <= 2
    labels = files["hue_scenes"]["clips_labels"]
    assert labels.shape == (10, 8, 48, 48)
    moved = [(clip[0] != clip[-1]).mean() for clip in labels]
    assert np.median(moved) > 0.02
    assert all(set(np.unique(frame)) == {0, 1, 2} for clip in labels for frame in clip)


def test_turns_and_radii_are_the_documented_ones():
    assert families.TURN == 0.4
    random = np.random.RandomState(4)
    angles = [figure.angle for _ in range(40) for figure in scattered(2, 48, (6.0, 10.0), random)]
    assert max(map(abs, angles)) <= 0.4
    assert np.std(angles) > 0.15
