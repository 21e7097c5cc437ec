"""The released attack's other normalisation, for a model that normalises inside."""

import pytest
import torch
from pydantic import ValidationError

from papers.boundary.method import ShrinkOptions, crossing, fgsm, official_scale
from shared.errors import UserError
from shared.models.build import build
from shared.training.device_images import DeviceImages

WRONG_MEAN = torch.tensor([0.4914, 0.4822, 0.2265]).view(3, 1, 1)
WRONG_STD = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (12, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return DeviceImages(pictures, torch.arange(12) % 4, 4)


@pytest.fixture
def network():
    return build("tiny_cnn", 4, 3, mean=[0.5] * 3, std=[0.5] * 3, seed=3).eval()


def released(network, batch, epsilon, grid):
    """The released order of things, written out on network inputs u = (x - .5) / .5; returns the attacked u."""
    inside, network.normalize = network.normalize, torch.nn.Identity()
    u = ((batch.images - 0.5) / 0.5).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(network(u), batch.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, u)
    pictures = u.detach() * WRONG_STD + WRONG_MEAN
    attacked = (pictures + epsilon * gradient.sign()).clamp(0, 1)
    attacked = torch.round(attacked * 255) / 255 if grid else attacked
    attacked = (attacked - WRONG_MEAN) / WRONG_STD
    with torch.no_grad():
        logits = network(attacked)
    network.normalize = inside
    return attacked, logits


def test_official_is_the_released_attack_on_network_inputs(network, data):
    batch = next(data.batches(12, shuffle=False))
    scale = official_scale(network, data)
    for grid in (False, True):
        expected, logits = released(network, batch, 0.1, grid)
        attacked = fgsm(network, batch.images, batch.labels, 0.1, (0.0, 1.0), grid, scale)
        difference = ((attacked - 0.5) / 0.5 - expected).abs()
        # a pixel half way between two levels may be rounded the other way by the last bit
        assert (difference > 2e-5).float().mean() <= (0.002 if grid else 0)
        assert difference.max() <= 1 / 255 / 0.199
        options = ShrinkOptions(lr=0.1, attack_norm="official", grid=grid)
        found = crossing(network, data, options)(batch)
        torch.testing.assert_close(found, logits, atol=1e-2 if grid else 1e-4, rtol=1e-4)


def test_the_official_step_is_two_and_a_half_times_as_long_and_may_leave_the_pixels_range(network, data):
    batch = next(data.batches(12, shuffle=False))
    scale = official_scale(network, data)
    attacked = fgsm(network, batch.images, batch.labels, 0.1, (0.0, 1.0), False, scale)
    step = (attacked - batch.images).abs()
    # 0.1 / std in network units, times .5 in pixels; where [0, 1] binds on the wrong scale it is shorter
    longest = 0.05 / WRONG_STD
    assert (step <= longest + 1e-5).all()
    assert ((step - longest).abs() < 1e-5).float().mean() > 0.7
    assert longest.min() > 2.4 * 0.1
    assert attacked.max() > 1.1
    matched = fgsm(network, batch.images, batch.labels, 0.1, (0.0, 1.0), False)
    assert (matched - batch.images).abs().max() <= 0.1 + 1e-6
    assert (matched.min(), matched.max()) == (0, 1)


def test_equal_normalisations_make_official_and_matched_one(data):
    """With the attack's normalisation inside the network too, the wrong scale is the pixels' own."""
    network = build("tiny_cnn", 4, 3, mean=WRONG_MEAN.flatten().tolist(), std=WRONG_STD.flatten().tolist(), seed=3)
    gain, offset = official_scale(network, data)
    torch.testing.assert_close(gain, torch.ones(3, 1, 1))
    torch.testing.assert_close(offset, torch.zeros(3, 1, 1), atol=1e-7, rtol=0)


def test_official_is_for_colour_images(forget, model):
    with pytest.raises(UserError, match="3 colour channels, these images have 1; use matched"):
        crossing(model, forget, ShrinkOptions(lr=0.1, attack_norm="official"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attack_norm": "official", "clip": "data"}, "clip must be unit"),
        ({"attack_norm": "offical"}, "'matched' or 'official'"),
        ({"epsilon": -0.1}, "greater than or equal to 0"),
        ({"curvature": -1.0}, "greater than or equal to 0"),
    ],
)
def test_bad_options_are_named(values, message):
    with pytest.raises(ValidationError, match=message):
        ShrinkOptions(lr=0.1, **values)
