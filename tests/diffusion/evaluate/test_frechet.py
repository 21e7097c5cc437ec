"""Fréchet distance: closed forms, and the bytes of Inception's input."""

import importlib.util
import math

import pytest
import torch
from torch import nn

from shared.diffusion.detectors.networks import as_bytes
from shared.diffusion.evaluate.frechet import (
    cast_unscaled,
    classifier_features,
    frechet_distance,
    inception_features,
)
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.errors import DataError, UserError


class Pixels(nn.Module):
    """The pixels themselves."""

    def __init__(self, num):
        super().__init__()
        self.num_features = num

    def forward(self, images):
        return images.flatten(1)


def gaussians(num, mean, scale, seed):
    """Images (num, 1, 1, len(mean)) of exactly the mean and the diagonal covariance scale^2."""
    noise = torch.randn(num, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (num - 1))).T
    return (torch.tensor(mean) + white * torch.tensor(scale))[:, None, None]


def test_two_gaussians_have_their_closed_form():
    first = gaussians(300, [0.0, 1.0, -2.0], [1.0, 0.5, 2.0], 0)
    second = gaussians(200, [1.0, 1.0, 0.0], [2.0, 0.5, 1.0], 1)
    # diagonal covariances: the sum of (mu1 - mu2)^2 + (s1 - s2)^2
    assert frechet_distance(first, second, Pixels(3)) == pytest.approx(1 + 4 + 1 + 0 + 1, rel=1e-9)


def test_a_set_is_at_distance_zero_of_itself():
    images = torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(images, images, Pixels(12)) == pytest.approx(0, abs=1e-6)


def test_batches_and_order_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    real, drawn = torch.rand(50, 1, 3, 1, generator=generator), torch.rand(40, 1, 3, 1, generator=generator) + 0.3
    whole = frechet_distance(real, drawn, Pixels(3))
    assert frechet_distance(iter(real.flip(0).split(7)), drawn, Pixels(3), batch=11) == pytest.approx(whole, rel=1e-9)
    assert whole > 0


def test_the_classifiers_features_are_read():
    classifier = ShapeClassifier(
        heads={"class": ["a", "b"]}, in_channels=1, sample_size=8, widths=(4,), num_features=5
    ).eval()
    features = classifier_features(classifier)
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(features(images), classifier.features(images))
    assert frechet_distance(images, 1 - images, features) > frechet_distance(images, images, features)


def test_few_images_and_broken_features_are_refused():
    images = torch.rand(4, 1, 2, 1)
    with pytest.raises(DataError, match="two images a side, and one side has 1"):
        frechet_distance(images, images[:1], Pixels(2))
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(images, images * math.nan, Pixels(2))


def test_bytes_of_an_image_file():
    assert as_bytes(torch.tensor([0.0, 0.5, 1.0, 0.3])).tolist() == [0, 128, 255, 76]


def test_the_released_cast_keeps_pure_black_and_white_alone():
    pixels = torch.tensor([0.0, 1e-4, 0.25, 0.5, 0.75, 0.9999, 1.0])
    assert cast_unscaled(pixels).tolist() == [255, 0, 0, 0, 0, 0, 1]


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="the package is there")
def test_inception_without_its_package_says_what_to_install():
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        inception_features(64, released_cast=True)
