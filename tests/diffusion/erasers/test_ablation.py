"""Concept ablation and selective amnesia: erasers that teach the concept's prompts other images."""

import copy

import pytest
import torch
import torch.nn.functional as F

from shared.diffusion.erasers.ablation import AblationOptions, ablation, ablation_loss
from shared.diffusion.erasers.images import RandomImages
from shared.diffusion.erasers.noising import predict, simple_loss
from shared.diffusion.erasers.selective_amnesia import AmnesiaOptions, amnesia, amnesia_loss, fisher_diagonal
from shared.diffusion.subsets import select, train_only
from shared.errors import ConfigError


@pytest.fixture
def batch(concept, abar):
    return next(RandomImages(concept.anchor, abar, 3, 1, torch.Generator().manual_seed(0)))


def test_ablating_a_concept_into_itself_costs_nothing(unet, batch):
    assert ablation_loss(unet, batch, batch.states, 0.0) == 0


def test_ablation_target_is_detached(unet, batch, states):
    train_only(unet, "key_value")
    concept = states(["a circle"]).expand(3, -1, -1)
    anchor = predict(unet, batch.latents, batch.timesteps, batch.states).detach()
    expected = F.mse_loss(predict(unet, batch.latents, batch.timesteps, concept), anchor)
    parameters = list(select(unet, "key_value").values())
    mine = torch.autograd.grad(ablation_loss(unet, batch, concept, 0.0), parameters)
    for a, b in zip(mine, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_ablation_keeps_anchors_with_a_weight(unet, batch, states):
    concept = states(["a circle"]).expand(3, -1, -1)
    plain = ablation_loss(unet, batch, concept, 0.0)
    torch.testing.assert_close(ablation_loss(unet, batch, concept, 0.2), plain + 0.2 * simple_loss(unet, batch))


def test_ablation_brings_the_concept_to_its_anchor(unet, concept, context, batch, states):
    words = states(concept.prompts)[batch.prompt]
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    first = ablation_loss(unet, batch, words, 0.0)
    ablation(unet, concept, AblationOptions(lr=3e-3, iterations=15), context)
    assert ablation_loss(unet, batch, words, 0.0) < 0.8 * first
    moved = {name for name, p in unet.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(select(unet, "key_value"))


def test_ablation_needs_images_of_its_anchors(unet, concept, context):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="concept 'circle': this eraser needs images, 'anchor'"):
        ablation(unet, replace(concept, anchor=None), AblationOptions(iterations=1), context)


def test_fisher_is_the_mean_squared_gradient_of_single_images(unet, concept, abar):
    train_only(unet, "key_value")
    fisher = fisher_diagonal(unet, concept.retained, abar, 3, torch.Generator().manual_seed(0))
    assert set(fisher) == set(select(unet, "key_value"))
    one = [
        fisher_diagonal(unet, concept.retained, abar, 1, generator)
        for generator in [torch.Generator().manual_seed(0)] * 3
    ]
    for name, value in fisher.items():
        torch.testing.assert_close(value, sum(f[name] for f in one) / 3)
        assert (value >= 0).all()


def test_amnesia_penalty_is_zero_at_the_start_and_quadratic(unet, concept, abar):
    from shared.diffusion.erasers.images import Pairs

    pair = next(Pairs(concept.forget, concept.retained, abar, 2, torch.Generator().manual_seed(0)))
    names = [name for name, _ in unet.named_parameters()][:3]
    parameters = dict(unet.named_parameters())
    start = {name: parameters[name].detach().clone() for name in names}
    fisher = {name: torch.full_like(value, 0.5) for name, value in start.items()}
    options = AmnesiaOptions(gamma=2.0, lam=10.0)
    plain = simple_loss(unet, pair.forget) + 2.0 * simple_loss(unet, pair.retain)
    torch.testing.assert_close(amnesia_loss(unet, pair, fisher, start, options), plain)
    shifted = {name: value + 0.01 for name, value in start.items()}
    num = sum(value.numel() for value in start.values())
    expected = plain + 10.0 * 0.5 * num * 1e-4
    torch.testing.assert_close(amnesia_loss(unet, pair, fisher, shifted, options), expected)


def test_amnesia_forgets_less_under_a_strong_penalty(unet, concept, make_context, weights):
    distance = {}
    for lam in (0.0, 1e8):
        options = AmnesiaOptions(lr=1e-3, batch=5, epochs=1, lam=lam, fisher_samples=4, trains="cross_attention")
        erased = amnesia(copy.deepcopy(unet), concept, options, make_context())
        distance[lam] = float((weights(erased.unet) - weights(unet)).norm())
    assert 0 < distance[1e8] < distance[0.0]
