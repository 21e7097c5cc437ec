"""The linear autoencoder: principal components, and the calls that pipelines make."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from shared.diffusion.world.autoencoder import LinearAutoencoder, fit_autoencoder


@pytest.fixture(scope="module")
def images(world_images):
    return world_images[0] * 2 - 1


@pytest.fixture(scope="module")
def autoencoder(images):
    return fit_autoencoder(images)


def encode(autoencoder, images):
    return autoencoder.encode(images).latent_dist.mean


def test_latents_span_the_principal_components(autoencoder, images):
    patches = F.pixel_unshuffle(images, 4).movedim(1, -1).flatten(0, 2).numpy()
    pca = PCA(12, svd_solver="full").fit(patches)
    wanted = pca.inverse_transform(pca.transform(patches))
    decoded = autoencoder.decode(encode(autoencoder, images)).sample
    found = F.pixel_unshuffle(decoded, 4).movedim(1, -1).flatten(0, 2).numpy()
    assert np.abs(found - wanted).max() < 1e-4


def test_decoding_after_encoding_is_a_projection(autoencoder, images):
    once = autoencoder.decode(encode(autoencoder, images)).sample
    twice = autoencoder.decode(encode(autoencoder, once)).sample
    assert torch.allclose(once, twice, atol=1e-5)


def test_all_components_lose_nothing(images):
    full = fit_autoencoder(images, latent_channels=48)
    assert torch.allclose(full.decode(encode(full, images)).sample, images, atol=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_evens_the_components_and_changes_no_image(balance, autoencoder, images):
    other = fit_autoencoder(images, balance=balance)
    latents = encode(other, images)
    assert torch.allclose(
        other.decode(latents).sample, autoencoder.decode(encode(autoencoder, images)).sample, atol=1e-4
    )
    spread = latents.std((0, 2, 3))
    plain = encode(fit_autoencoder(images, balance=0.0), images).std((0, 2, 3))
    assert torch.allclose(spread, plain ** (1 - balance), rtol=1e-3)
    assert torch.allclose(other.components @ other.components.T, torch.eye(12), atol=1e-5)


def test_scaled_latents_have_mean_zero_and_unit_variance(autoencoder, images):
    latents = encode(autoencoder, images) * autoencoder.config.scaling_factor
    assert latents.shape == (len(images), 12, 8, 8)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert float(latents.square().mean()) == pytest.approx(1, abs=1e-3)


def test_the_posterior_has_no_width(autoencoder, images):
    posterior = autoencoder.encode(images[:2]).latent_dist
    assert torch.equal(posterior.sample(), posterior.mean)
    assert torch.equal(posterior.mode(), posterior.mean)
    assert posterior.std.abs().max() == 0


def test_saved_and_read_again(autoencoder, images, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    again = LinearAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(encode(again, images), encode(autoencoder, images))
    assert again.config.scaling_factor == autoencoder.config.scaling_factor


@pytest.mark.slow
def test_numbers_of_the_world():
    """Explained variance 0.98, reconstruction error 0.003 in [0, 1]."""
    from shared.diffusion.world.images import shapes_styles

    images = torch.from_numpy(shapes_styles(0)["train_images.npy"]).movedim(3, 1).float() / 127.5 - 1
    autoencoder = fit_autoencoder(images)
    error = (autoencoder.decode(encode(autoencoder, images)).sample - images).square().mean() / 4
    patches = F.pixel_unshuffle(images, 4)
    variance = (patches - patches.mean((0, 2, 3), keepdim=True)).square().mean() / 4
    assert float(error) < 0.0035
    assert float(1 - error / variance) > 0.975
