"""Captured cross-attention, and the erasers that look at it: FMN and SuppressEOT."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from shared.diffusion.erasers.attention import captured_attention
from shared.diffusion.erasers.fmn import FmnOptions, fmn, fmn_loss
from shared.diffusion.erasers.modules import cross_attentions
from shared.diffusion.erasers.noising import predict
from shared.diffusion.erasers.seot import SeotOptions, attention_loss, seot, softened
from shared.diffusion.erasers.tokens import token_mask
from shared.errors import ConfigError


def run(unet, batch):
    return predict(unet, batch.latents, batch.timesteps, batch.states)


def test_capturing_changes_nothing_and_leaves_nothing(unet, noised_batch):
    plain = run(unet, noised_batch)
    with captured_attention(unet) as found:
        captured = run(unet, noised_batch)
    assert torch.equal(plain, captured)
    assert set(found) == set(cross_attentions(unet))
    found.clear()
    run(unet, noised_batch)
    assert not found


def test_probabilities_are_those_of_the_network(unet, noised_batch, monkeypatch):
    """Against what the library's own unfused attention multiplies with the values."""
    with captured_attention(unet) as found:
        run(unet, noised_batch)
    seen = []
    product = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: (seen.append(a), product(a, b))[1])
    unet.set_attn_processor(AttnProcessor())
    run(unet, noised_batch)
    cross = [a.detach() for a in seen if a.shape[-1] == 8]
    assert len(cross) == len(found)
    for probabilities in found.values():
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:-1]))
        mine = probabilities.detach().flatten(0, 1)
        assert sum(a.shape == mine.shape and torch.allclose(a, mine, atol=1e-6) for a in cross) == 1


def test_fmn_loss_is_the_norm_of_all_probabilities_at_the_positions(unet, noised_batch):
    positions = torch.zeros(3, 8, dtype=torch.bool)
    positions[0, 2] = positions[1, 3] = positions[2, 1] = True
    with captured_attention(unet) as found:
        run(unet, noised_batch)
    chosen = torch.cat([p[torch.arange(3), :, :, [2, 3, 1]].flatten() for p in found.values()])
    torch.testing.assert_close(fmn_loss(unet, noised_batch, positions), chosen.norm())


def test_fmn_loss_of_all_positions_bounds_every_other(unet, noised_batch):
    everything = fmn_loss(unet, noised_batch, torch.ones(3, 8, dtype=torch.bool))
    part = torch.zeros(3, 8, dtype=torch.bool)
    part[:, 1:3] = True
    rest = fmn_loss(unet, noised_batch, ~part)
    torch.testing.assert_close(everything**2, rest**2 + fmn_loss(unet, noised_batch, part) ** 2)


@pytest.mark.parametrize("use_pooler", [False, True])
def test_fmn_turns_attention_away(use_pooler, unet, concept, context, noised_batch):
    options = FmnOptions(trains="cross_attention", lr=3e-3, batch=2, iterations=10, use_pooler=use_pooler)
    positions = torch.zeros(3, 8, dtype=torch.bool)
    positions[:, 2] = True
    images = concept.images("forget")
    batch = noised_batch._replace(states=images.states[[0, 0, 0]])
    before = fmn_loss(unet, batch, positions)
    erased = fmn(unet, concept, options, context)
    assert fmn_loss(erased.unet, batch, positions) < 0.9 * before


def test_a_concept_that_is_not_in_its_prompt_is_named(unet, concept, context):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="prompt 'a circle': the concept's words are not in it"):
        fmn(unet, replace(concept, name="square"), FmnOptions(), context)


def test_token_positions():
    assert token_mask([2, 5, 7, 5], [5], 8, "").nonzero().flatten().tolist() == [2, 4]
    assert token_mask([2, 5, 7], [5, 7], 8, "").nonzero().flatten().tolist() == [2, 3]
    assert token_mask([2, 5], [5], 6, "", with_padding=True).nonzero().flatten().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("a", [0.1, 1.0])
def test_softening_shrinks_singular_values_and_keeps_their_directions(a, states):
    own = states(["a red circle"])[0]
    positions = torch.tensor([False, False, False, True, True, True, True, True])
    changed = softened(own, positions, a)
    assert torch.equal(changed[~positions], own[~positions])
    before = torch.linalg.svd(own[positions], full_matrices=False)
    after = changed[positions]
    torch.testing.assert_close(before.U.T @ after @ before.Vh.T, torch.diag(before.S * torch.exp(-a * before.S)))


def test_no_softening_in_the_limit(states):
    own = states(["a red circle"])[0]
    torch.testing.assert_close(softened(own, torch.ones(8, dtype=torch.bool), 1e-9), own)


def test_attention_loss_is_zero_at_the_prompt_s_own_states_and_weighs_both_parts():
    generator = torch.Generator().manual_seed(0)
    old = {"x": torch.rand(1, 2, 3, 4, generator=generator)}
    concept = torch.tensor([[False, True, False, False]])
    assert attention_loss(old, old, concept, 1.0, 0.5) == 0
    new = {"x": old["x"].clone()}
    new["x"][..., 1] += 0.3
    torch.testing.assert_close(attention_loss(new, old, concept, 1.0, 0.5), torch.tensor(-0.5 * 0.09 / 4))
    new["x"][..., 2] += 0.1
    expected = torch.tensor((-0.5 * 0.09 + 1.0 * 0.01) / 4)
    torch.testing.assert_close(attention_loss(new, old, concept, 1.0, 0.5), expected)


def test_suppression_acts_on_prompts_with_the_concept_in_the_first_steps_only(unet, concept, context, states, draw):
    prompts = ["a red circle", "a square"]
    own = states(prompts)
    options = SeotOptions(a=0.5, lr=0.1, updates=2, steps=2)
    erased = seot(unet, concept, options, context)
    plain = draw(copy.deepcopy(unet), None, prompts)
    rule = erased.guidance(prompts, 7.5)
    start = rule.branches(states([""])[0], own)[1]
    assert torch.equal(start[1], own[1])
    assert not torch.allclose(start[0], own[0])
    latents = draw(unet, erased.guidance, prompts)
    assert not torch.allclose(latents[0], plain[0], atol=1e-4)
    torch.testing.assert_close(latents[1], plain[1], atol=1e-4, rtol=1e-4)
    assert not unet._forward_pre_hooks  # nothing is left on the network


def test_states_change_at_the_first_steps_and_then_stay(unet, concept, context, draw):
    erased = seot(unet, concept, SeotOptions(a=0.5, lr=5.0, updates=1, steps=2), context)
    seen = []
    forward = unet.forward

    def recording(*args, encoder_hidden_states, **kwargs):
        if not torch.is_grad_enabled() and len(encoder_hidden_states) == 2:
            seen.append(encoder_hidden_states[1].clone())
        return forward(*args, encoder_hidden_states=encoder_hidden_states, **kwargs)

    unet.forward = recording
    draw(unet, erased.guidance, ["a circle"])
    assert len(seen) == 4
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])


def test_suppression_without_rate_is_softening_alone(unet, concept, context, states, draw):
    erased = seot(unet, concept, SeotOptions(a=0.5, lr=0.0), context)
    rule = erased.guidance(["a circle"], 7.5)
    start = rule.branches(states([""])[0], states(["a circle"]))[1]
    mask = token_mask([2, 5], [5], 8, "", with_padding=True)
    assert torch.equal(start[0], softened(states(["a circle"])[0], mask, 0.5))
    rule.start(slice(0, 1))
    assert not unet._forward_pre_hooks


def test_a_gradient_step_lowers_the_attention_loss(unet, concept, context, states):
    options = SeotOptions(a=0.5, lr=50.0, updates=5, steps=1)
    rule = seot(unet, concept, options, context).guidance(["a circle"], 7.5)
    latents, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(600)
    own = states(["a circle"])
    start = rule.branches(states([""])[0], own)[1]
    end = rule.updated(latents, time, start)

    def loss(condition):
        maps = []
        for c in (condition, own):
            with torch.no_grad(), captured_attention(unet) as found:
                predict(unet, latents, time.expand(1), c)
            maps.append(found)
        mask = token_mask([2, 5], [5], 8, "", with_padding=True)[None]
        return attention_loss(*maps, mask, 1.0, 0.5)

    assert loss(end) < loss(start)
