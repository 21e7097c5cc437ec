"""SLD: its limits, the published strengths, momentum, warm-up on index and on time."""

import pytest
import torch

from shared.diffusion.erasers.sld import STRENGTHS, SafetyGuidance, SldOptions, Strength, safety_guidance, sld
from shared.diffusion.sample import ClassifierFree, Step


@pytest.fixture
def predictions():
    return torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def guidance_with(strength, scale=7.5, **options):
    return SafetyGuidance(ClassifierFree(scale), torch.zeros(8, 16), strength, **options).start(slice(0, 2))


def drawn(rule, predictions, index=0, timestep=999):
    return rule(predictions, Step(index, 50, timestep))


def plain(predictions):
    return ClassifierFree(7.5)(predictions[:2], Step(0, 50, 999))


def test_published_strengths():
    assert STRENGTHS["weak"] == (200, 0.0, 0.0, 0.0, 15)
    assert STRENGTHS["medium"] == (1000, 0.01, 0.3, 0.4, 10)
    assert STRENGTHS["strong"] == (2000, 0.025, 0.5, 0.7, 7)
    assert STRENGTHS["max"] == (5000, 1.0, 0.5, 0.7, 0)


@pytest.mark.parametrize(
    "strength",
    [Strength(0.0, 1.0, 0.3, 0.4, 0), Strength(1000.0, -1e9, 0.3, 0.4, 0), Strength(1000.0, 1.0, 0.3, 0.4, 10**6)],
)
def test_without_scale_or_below_no_threshold_or_before_the_end_of_warm_up_it_is_plain_guidance(strength, predictions):
    rule = guidance_with(strength)
    for index in range(3):
        torch.testing.assert_close(drawn(rule, predictions, index), plain(predictions))


def test_fully_on_without_momentum_the_safety_prompt_replaces_its_own_direction(predictions):
    """mu = 1 everywhere: u + g (p - u - (s - u)) = u + g (p - s)."""
    null, prompt, safety = predictions
    rule = guidance_with(Strength(1e12, 1e9, 0.0, 0.0, 0))
    torch.testing.assert_close(drawn(rule, predictions), null + 7.5 * (prompt - safety))


def test_same_prompt_and_safety_prompt_changes_nothing(predictions):
    null, prompt, _ = predictions
    rule = guidance_with(Strength(5000.0, 1.0, 0.0, 0.0, 0))
    torch.testing.assert_close(drawn(rule, torch.stack([null, prompt, prompt])), plain(predictions))


def test_elementwise_definition(predictions):
    strength = Strength(2.0, 0.5, 0.5, 0.7, 0)
    null, prompt, safety = predictions
    momentum = torch.full_like(null, 0.25)
    correction, after = safety_guidance(null, prompt, safety, momentum, strength)
    for index in [(0, 0, 0, 0), (1, 3, 7, 7), (0, 2, 5, 1), (1, 1, 1, 1), (0, 3, 4, 4)]:
        u, p, s = (float(x[index]) for x in predictions)
        scale = min(2.0 * abs(p - s), 1.0) if p - s < 0.5 else 0.0
        expected = scale * (s - u) + 0.5 * 0.25
        assert float(correction[index]) == pytest.approx(expected)
        assert float(after[index]) == pytest.approx(0.7 * 0.25 + 0.3 * expected)


def test_momentum_grows_during_warm_up_and_is_forgotten_between_batches(predictions):
    warm, cold = guidance_with(Strength(1.0, 1.0, 0.5, 0.4, 3)), guidance_with(Strength(1.0, 1.0, 0.5, 0.4, 0))
    for index in range(3):
        torch.testing.assert_close(drawn(warm, predictions, index), plain(predictions))
        drawn(cold, predictions, index)
    torch.testing.assert_close(drawn(warm, predictions, 3), drawn(cold, predictions, 3))
    again = guidance_with(Strength(1.0, 1.0, 0.5, 0.4, 0))
    first = drawn(again, predictions)
    second = drawn(again, predictions)
    assert not torch.equal(first, second)
    assert torch.equal(drawn(again.start(slice(0, 2)), predictions), first)


def test_warm_up_on_the_index_and_on_the_time(predictions):
    strength = STRENGTHS["medium"]
    cases = {(0, 981): (False, True), (9, 801): (False, True), (10, 781): (True, True), (49, 1): (True, False)}
    for (index, time), (on_index, on_time) in cases.items():
        for on_timestep, corrected in ((False, on_index), (True, on_time)):
            rule = guidance_with(strength, warmup_on_timestep=on_timestep)
            same = torch.equal(drawn(rule, predictions, index, time), plain(predictions))
            assert same != corrected


def test_guidance_may_differ_between_prompts(predictions):
    both = drawn(guidance_with(STRENGTHS["max"], scale=[7.5, 15.0]), predictions)
    for row, scale in enumerate((7.5, 15.0)):
        one = drawn(guidance_with(STRENGTHS["max"], scale=scale), predictions[:, row : row + 1])
        torch.testing.assert_close(both[row : row + 1], one)


def test_the_safety_prompt_is_a_third_branch(states):
    rule = SafetyGuidance(ClassifierFree(7.5), states(["circle"])[0], STRENGTHS["weak"])
    branches = rule.branches(states([""])[0], states(["a", "red"]))
    expected = torch.stack([states(["", ""]), states(["a", "red"]), states(["circle", "circle"])])
    assert torch.equal(branches, expected)


def test_sld_changes_no_weight_and_draws_other_images(unet, concept, context, weights, draw):
    before = weights(unet)
    erased = sld(unet, concept, SldOptions(strength="max"), context)
    assert torch.equal(weights(erased.unet), before)
    safe, own = (draw(unet, rule, ["a circle"]) for rule in (erased.guidance, None))
    assert not torch.allclose(safe, own)
