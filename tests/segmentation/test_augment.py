"""Steps that change colours, and lists of steps."""

import numpy as np
import pydantic
import pytest
import torch

from shared.segmentation.augment import options
from shared.segmentation.augment.appearance import APPEARANCE
from shared.segmentation.augment.compose import augmentation
from shared.segmentation.augment.geometry import GEOMETRY
from shared.segmentation.augment.options import Step

STEPS = pydantic.TypeAdapter(list[Step])
NEEDED = {
    "pad": {"multiple": 48},
    "random_crop": {"size": 32},
    "random_sized_crop": {"smallest": 24, "largest": 32, "size": 32},
    "superpixels": {"replace": 0.5},
}
KINDS = sorted(GEOMETRY | APPEARANCE)


def augment_of(*steps):
    return augmentation(STEPS.validate_python(list(steps)))


def picture(seed=0, size=(40, 40)):
    """Smooth colours, as flat noise would hide what blurring does."""
    coarse = np.random.default_rng(seed).integers(20, 235, (size[0] // 4, size[1] // 4, 3))
    return coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8)


def changed(step, image, seed=0):
    return augment_of(step)(image, None, None, np.random.default_rng(seed)).image


def test_every_kind_has_one_function():
    kinds = [step.model_fields["kind"].annotation.__args__[0] for step in options.Step.__origin__.__args__]
    assert sorted(kinds) == KINDS
    assert not GEOMETRY.keys() & APPEARANCE.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_probability_zero_is_the_identity(kind):
    image, labels, points = picture(), np.ones((40, 40), np.int32), np.ones((3, 2), np.float32)
    found = augment_of({"kind": kind, "p": 0.0, **NEEDED.get(kind, {})})(
        image, labels, points, np.random.default_rng(0)
    )
    for mine, given in zip(found, (image, labels, points), strict=True):
        np.testing.assert_array_equal(mine, given)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_generator_decides_and_nothing_changes_in_place(kind):
    image = picture() + np.random.default_rng(0).integers(0, 20, (40, 40, 3), np.uint8)
    labels = np.arange(1600, dtype=np.int32).reshape(40, 40)
    points = np.array([[3, 4, 1], [20, 30, 0]], np.float32)
    given = [x.copy() for x in (image, labels, points)]
    augment = augment_of({"kind": kind, **NEEDED.get(kind, {})})
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = [augment(image, labels, points, rng) for rng in [np.random.default_rng(5)] for _ in range(4)]
    second = [augment(image, labels, points, rng) for rng in [np.random.default_rng(5)] for _ in range(4)]
    for one, other in zip(first, second, strict=True):
        for mine, yours in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, yours)
    assert any(not np.array_equal(one.image, image) for one in first)
    for mine, before in zip((image, labels, points), given, strict=True):
        np.testing.assert_array_equal(mine, before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("kind", sorted(APPEARANCE))
def test_colour_steps_keep_the_size_and_leave_labels_alone(kind):
    image, labels = picture(size=(44, 36)), np.arange(44 * 36, dtype=np.int32).reshape(44, 36)
    found = augment_of({"kind": kind, **NEEDED.get(kind, {})})(image, labels, None, np.random.default_rng(1))
    assert found.image.shape == (44, 36, 3)
    assert found.image.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, labels)


def test_settings_that_mean_nothing_to_do():
    image = picture()
    for step in (
        {"kind": "color_jitter", "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        {"kind": "downscale", "scale": 1.0},
        {"kind": "gaussian_noise", "variance": 0.0},
        {"kind": "superpixels", "replace": 0.0},
    ):
        np.testing.assert_array_equal(changed(step, image), image)


def test_brightness_alone_multiplies():
    image = picture()
    step = {"kind": "color_jitter", "brightness": 0.25, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    factors = [changed(step, np.full((4, 4, 3), 100, np.uint8), seed).mean() / 100 for seed in range(60)]
    assert 0.74 < min(factors) < 0.8
    assert 1.2 < max(factors) < 1.26
    factor = changed(step, np.full((4, 4, 3), 200, np.uint8), 3).mean() / 200
    assert factor < 1  # so that nothing is cut at 255
    np.testing.assert_allclose(changed(step, image, 3), image * factor, atol=1.5)


def test_downscale_repeats_the_first_pixel_of_each_block():
    image = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    found = changed({"kind": "downscale", "scale": 0.5}, image)
    np.testing.assert_array_equal(found, image[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_blur_is_a_mean_over_an_odd_square():
    impulse = np.zeros((31, 31, 3), np.uint8)
    impulse[15, 15] = 255
    sides = set()
    for seed in range(40):
        found = changed({"kind": "blur", "limit": 10}, impulse, seed)[..., 0]
        side = round(np.sqrt((found > 0).sum()))
        assert (found[found > 0] == round(255 / side**2)).all()
        sides.add(side)
    assert sides == {3, 5, 7, 9}
    flat = np.full((20, 20, 3), 77, np.uint8)
    np.testing.assert_array_equal(changed({"kind": "blur"}, flat), flat)


def test_noise_has_the_variance_asked_for():
    flat = np.full((100, 100, 3), 128, np.uint8)
    found = [changed({"kind": "gaussian_noise", "variance": 50.0}, flat, seed).astype(float) for seed in range(60)]
    variances = np.array([noisy.var() for noisy in found])
    assert variances.max() < 52
    assert variances.min() < 5
    assert abs(variances.mean() - 25) < 6
    assert abs(found[0].mean() - 128) < 0.2
    assert not np.array_equal(found[0][..., 0], found[0][..., 1])


def test_zoom_blur_smears_outwards_and_not_at_the_centre():
    flat = np.full((41, 41, 3), 60, np.uint8)
    np.testing.assert_array_equal(changed({"kind": "zoom_blur"}, flat), flat)
    image = np.random.default_rng(0).integers(0, 255, (41, 41, 3), np.uint8)
    found = changed({"kind": "zoom_blur", "max_factor": 1.3}, image, 2)
    change = np.abs(found.astype(int) - image)
    assert change[20, 20].max() <= 1  # the centre of all enlargements
    assert change[:6].mean() > 4 * change[19:22, 19:22].mean()


def test_superpixels_become_their_mean_colour():
    image = picture(size=(48, 48))
    noisy = np.clip(image + np.random.default_rng(1).normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    found = changed({"kind": "superpixels", "replace": 1.0, "segments": 60}, noisy)
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 80
    assert abs(found.mean() - noisy.mean()) < 1
    half = changed({"kind": "superpixels", "replace": 0.5, "segments": 60}, noisy)
    same = (half == noisy).all(-1).mean()
    assert 0.2 < same < 0.8


def test_superpixels_of_a_large_image_come_back_in_its_size():
    image = picture(size=(64, 96))
    found = changed({"kind": "superpixels", "replace": 1.0, "segments": 40, "max_size": 48}, image)
    assert found.shape == image.shape


def test_a_list_applies_each_step_with_its_own_probability():
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = 255
    augment = augment_of({"kind": "horizontal_flip", "p": 0.3}, {"kind": "vertical_flip", "p": 0.8})
    rng = np.random.default_rng(0)
    corners = np.array([np.argwhere(augment(image, None, None, rng).image[..., 0])[0] for _ in range(600)]) / 3
    assert abs(corners[:, 1].mean() - 0.3) < 0.06
    assert abs(corners[:, 0].mean() - 0.8) < 0.06


def test_the_order_of_the_list_counts():
    image = picture(size=(40, 40))
    steps = {"kind": "pad", "multiple": 64}, {"kind": "horizontal_flip"}
    padded_first = augment_of(*steps)(image, None, None, np.random.default_rng(0)).image
    flipped_first = augment_of(*reversed(steps))(image, None, None, np.random.default_rng(0)).image
    np.testing.assert_array_equal(padded_first[:40, 24:], image[:, ::-1])
    np.testing.assert_array_equal(flipped_first[:40, :40], image[:, ::-1])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"kind": "rotate"}, "kind"),
        ({"kind": "blur", "p": 1.5}, "less than or equal to 1"),
        ({"kind": "blur", "size": 3}, "Extra inputs"),
        ({"kind": "random_sized_crop", "smallest": 9, "largest": 8, "size": 8}, "smallest 9 is above largest 8"),
        ({"kind": "downscale", "scale": 0.0}, "greater than 0"),
    ],
)
def test_bad_steps_are_refused(step, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        STEPS.validate_python([step])
