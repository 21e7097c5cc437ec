"""Targets, injections and thresholds, on pictures whose answer is known."""

import pytest
import torch
from torch.testing import assert_close

from papers.diffews.options import Answering
from papers.diffews.pictures import eight_bit, evidence, painted, shown, target, thresholds

RELATIVE = Answering()


@pytest.fixture
def image():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8


@pytest.fixture
def mask():
    found = torch.zeros(2, 8, 8, dtype=torch.bool)
    found[:, 2:5, 3:7] = True
    return found


def cut(found, options=RELATIVE):
    return found.mean(1) > thresholds(found, options)[:, None, None]


@pytest.mark.parametrize("form", ["white", "object", "hole", "blend"])
def test_a_perfect_picture_gives_the_mask_back(form, image, mask):
    assert torch.equal(cut(evidence(form, target(form, image, mask), image)), mask)


def test_white_on_black_is_the_mask_in_every_channel(mask):
    assert painted(mask).unique().tolist() == [-1, 1]
    assert torch.equal(painted(mask)[:, 1] > 0, mask)


def test_targets_with_the_real_image_keep_it_where_they_should(image, mask):
    inside = mask[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(target("object", image, mask)[inside], image[inside])
    assert torch.equal(target("hole", image, mask)[~inside], image[~inside])
    assert_close(target("blend", image, mask), 0.5 * image + 0.5 * painted(mask))


def test_an_unknown_target_is_an_error(image, mask):
    with pytest.raises(ValueError, match="unknown target"):
        target("green", image, mask)


def test_injections_change_the_picture_or_leave_it(image, mask):
    assert_close(shown("add", image, mask), (image + painted(mask)) / 2)
    assert torch.equal(shown("multiply", image, mask), target("object", image, mask))
    for injection in ("concat", "multiply_latent", "mask"):
        assert shown(injection, image, mask) is image


def test_eight_bits_are_cut_off_not_rounded():
    values = torch.tensor([-1.0, 1.0, 2 * 0.9999 - 1, 2 * 1.9 / 255 - 1, 3.0, -3.0])
    assert_close(eight_bit(values) * 255, torch.tensor([0.0, 255.0, 254.0, 1.0, 255.0, 0.0]))


def test_the_relative_threshold_is_a_share_of_the_brightest_channel():
    found = torch.zeros(1, 3, 2, 2)
    found[0, 0, 0, 0] = 0.8  # the brightest value; its mean over channels is a third of it
    found[0, :, 1, 1] = 0.21
    found[0, :, 0, 1] = 0.19
    assert cut(found)[0].tolist() == [[True, False], [False, True]]
    assert_close(thresholds(found, RELATIVE), torch.tensor([0.2]))


def test_a_black_picture_is_empty_whatever_its_noise():
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9 / 255
    assert not cut(noise).any()
    assert not cut(evidence("white", torch.full((1, 3, 8, 8), -1.0), torch.zeros(1, 3, 8, 8))).any()


def test_the_absolute_threshold_does_not_look_at_the_picture():
    found = torch.full((1, 3, 2, 2), 0.11)
    assert cut(found, Answering(threshold="absolute", tau=0.1)).all()
    assert not cut(found, Answering(threshold="absolute", tau=0.15)).any()


def test_each_picture_has_its_own_threshold():
    found = torch.stack([torch.full((3, 2, 2), 0.4), torch.full((3, 2, 2), 0.8)])
    assert_close(thresholds(found, RELATIVE), torch.tensor([0.1, 0.2]))
