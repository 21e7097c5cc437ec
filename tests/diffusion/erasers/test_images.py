"""Batches of images and pairs: order, streams, posterior, the released loaders' faults; bad input."""

import pytest
import torch

from shared.diffusion.erasers.images import LatentImages, Pairs, RandomImages, noised_batch, one_pass
from shared.diffusion.erasers.noising import noised
from shared.errors import DataError


def pairs(concept, abar, batch=4, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return Pairs(concept.forget, concept.retained, abar, batch, generator, **settings)


def clean_of(batch, abar):
    kept = abar[batch.timesteps].view(-1, 1, 1, 1)
    return (batch.latents - (1 - kept).sqrt() * batch.noise) / kept.sqrt()


def rows_of(batch, images, abar):
    """Which images a batch shows; late times have lost the digits, so by the nearest."""
    distances = torch.cdist(clean_of(batch, abar).flatten(1), images.mean.flatten(1))
    return distances.argmin(1).tolist()


def test_an_epoch_shows_every_forget_image_once_with_a_retain_batch_of_its_size(concept, abar):
    batches = pairs(concept, abar)
    found = list(batches)
    assert [len(b.forget.latents) for b in found] == [len(b.retain.latents) for b in found] == [4, 4, 2]
    assert len(batches) == 3
    forget = [row for b in found for row in rows_of(b.forget, concept.forget, abar)]
    retain = [row for b in found for row in rows_of(b.retain, concept.retained, abar)]
    assert sorted(forget) == list(range(10))
    assert forget != list(range(10))
    assert sorted(retain[:7]) == list(range(7))  # a stream: all seven before any comes again


def test_prompts_and_anchors_belong_to_their_images(concept, abar):
    for batch in pairs(concept, abar):
        for row, image in enumerate(rows_of(batch.forget, concept.forget, abar)):
            prompt = concept.forget.prompt[image]
            assert torch.equal(batch.forget.states[row], concept.forget.states[prompt])
            assert torch.equal(batch.anchor[row], concept.forget.anchors[prompt])
            assert batch.forget.prompt[row] == prompt
        assert batch.target_latents is batch.forget.latents


def test_anchors_of_the_retain_batch(concept, abar):
    for batch in pairs(concept, abar, anchors="retain"):
        assert torch.equal(batch.anchor, batch.retain.states)


def test_first_batch_bug_shows_the_first_images_again_and_again(concept, abar):
    batches = list(pairs(concept, abar, batch=3, shuffle_forget=False, first_batch_bug=True))
    assert [rows_of(b.forget, concept.forget, abar) for b in batches] == [[0, 1, 2]] * 4
    retained = [tuple(rows_of(b.retain, concept.retained, abar)) for b in batches]
    assert len(set(retained)) > 1


def test_posterior_is_drawn_twice_under_the_same_noise_and_time(make_concept, abar):
    concept = make_concept(std=True)
    batch = next(pairs(concept, abar, shuffle_forget=False, resample_posterior=True))
    assert not torch.equal(batch.target_latents, batch.forget.latents)
    kept = abar[batch.forget.timesteps].view(-1, 1, 1, 1)
    difference = (batch.target_latents - batch.forget.latents) / kept.sqrt()
    # two draws of the same width, apart by sqrt(2) of it on average
    ratio = (difference.square().mean() / (2 * concept.forget.std[:4].square().mean())).sqrt()
    assert 0.8 < ratio < 1.2
    once = next(pairs(concept, abar, shuffle_forget=False))
    assert torch.equal(once.target_latents, once.forget.latents)


def test_batches_are_seeded(concept, abar):
    for make in (
        lambda seed: [b.forget for b in pairs(concept, abar, seed=seed)],
        lambda seed: list(RandomImages(concept.forget, abar, 3, 4, torch.Generator().manual_seed(seed))),
    ):
        first, again, other = (torch.cat([b.latents for b in make(seed)]) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_noised_images_are_the_forward_process(concept, abar):
    batch = noised_batch(concept.forget, torch.tensor([3, 1]), abar, torch.Generator().manual_seed(0))
    expected = noised(concept.forget.mean[[3, 1]], batch.noise, batch.timesteps, abar)
    assert torch.equal(batch.latents, expected)
    order = [rows_of(b, concept.forget, abar) for b in one_pass(concept.forget, abar, 4, torch.Generator(), False)]
    assert order == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_bad_images_are_named(concept, abar):
    images = concept.forget
    broken = images.mean.clone()
    broken[6, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="image 6: its latent holds NaN"):
        LatentImages(broken, images.prompt, images.states)
    with pytest.raises(DataError, match="10 images with 9 prompts"):
        LatentImages(images.mean, images.prompt[:9], images.states)
    with pytest.raises(DataError, match="no anchor prompts"):
        next(Pairs(concept.retained, concept.forget, abar, 2, torch.Generator()))
    with pytest.raises(DataError, match="posterior's width"):
        pairs(concept, abar, resample_posterior=True)
