"""Latents computed once."""

import pytest
import torch

from shared.diffusion.latents import Latents, cached_latents, encode_images
from shared.diffusion.text_to_image import load_text_to_image


@pytest.fixture
def pipe_and_images(stable_diffusion):
    return load_text_to_image(stable_diffusion), torch.rand(5, 3, 16, 16)


def test_posteriors_are_the_pipelines(pipe_and_images):
    pipe, images = pipe_and_images
    latents = encode_images(pipe, images.split(2))
    assert len(latents) == 5
    assert torch.allclose(latents.mean, pipe.to_latents(images), atol=1e-5)
    assert latents.std.min() > 0


def test_draws_have_the_posteriors_width():
    latents = Latents(torch.zeros(2, 4, 50, 50), torch.stack([torch.full((4, 50, 50), width) for width in (0.0, 3.0)]))
    drawn = latents.draw(torch.tensor([1, 0, 1]), torch.Generator().manual_seed(0))
    assert drawn.flatten(1).std(1).tolist() == pytest.approx([3, 0, 3], rel=0.03)
    assert not torch.equal(drawn[0], drawn[2])


def test_a_cache_is_read_by_its_key_alone(pipe_and_images, tmp_path):
    pipe, images = pipe_and_images
    path, made = tmp_path / "latents.safetensors", []

    def make():
        made.append(1)
        return encode_images(pipe, [images])

    first = cached_latents(path, "a", make)
    again = cached_latents(path, "a", make)
    assert torch.equal(again.mean, first.mean)
    assert torch.equal(again.std, first.std)
    assert len(made) == 1
    cached_latents(path, "b", make)
    assert len(made) == 2
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="latents are computed again"):
        cached_latents(path, "b", make)
    assert len(made) == 3
