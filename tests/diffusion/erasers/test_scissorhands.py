"""ScissorHands: what is re-initialised, and the projection of gradients."""

import copy

import pytest
import torch

from shared.diffusion.erasers.images import one_pass
from shared.diffusion.erasers.noising import simple_loss
from shared.diffusion.erasers.scissorhands import Projection, ScissorHandsOptions, reinitialise, scissorhands
from shared.diffusion.subsets import select, train_only
from shared.training.state import LoopState


def scores_of(unet, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(p.shape, generator=generator) for name, p in unet.named_parameters()}


def test_the_top_share_is_redrawn_where_it_lies_in_cross_attention(unet):
    scores = scores_of(unet)
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    threshold = torch.quantile(torch.cat([s.flatten() for s in scores.values()]).double(), 0.9)
    num = reinitialise(unet, scores, 0.9, torch.Generator().manual_seed(0))
    changed = 0
    for name, parameter in unet.named_parameters():
        different = parameter.detach() != before[name]
        changed += int(different.sum())
        if ".attn2." not in name:
            assert not different.any()
            continue
        assert not (different & (scores[name] < threshold - 1e-6)).any()
        fresh = parameter.detach()[scores[name] > threshold + 1e-6]
        if parameter.dim() == 1:
            assert not fresh.any()
        elif len(fresh) > 100:
            assert 0.015 < fresh.std() < 0.025
    inside = sum(int((scores[n] > threshold + 1e-6).sum()) for n in select(unet, "cross_attention"))
    assert abs(num - inside) <= 1
    assert num >= changed > 0.5 * num  # biases may have been 0 before


def test_nothing_is_redrawn_at_quantile_one(unet, weights):
    before = weights(unet)
    assert reinitialise(unet, scores_of(unet), 1.0, torch.Generator()) == 0
    assert torch.equal(weights(unet), before)


@pytest.fixture
def projected(unet, concept, abar):
    """A network whose gradients are set by hand, and the hook."""
    train_only(unet, "key_value")
    pruned = copy.deepcopy(unet).requires_grad_(False)

    def batches():
        return one_pass(concept.forget, abar, 4, torch.Generator().manual_seed(0), shuffle=False)

    hook = Projection(pruned, batches, len(concept.forget), every=2)
    optimizer = torch.optim.SGD([p for p in unet.parameters() if p.requires_grad], 0.1)
    state = LoopState(unet, optimizer, 1, torch.Generator())
    named = dict(pruned.named_parameters())
    chosen = [named[n].requires_grad_(True) for n in select(unet, "key_value")]
    total = [torch.zeros_like(p) for p in chosen]
    for batch in batches():
        share = len(batch.latents) / len(concept.forget)
        for t, g in zip(total, torch.autograd.grad(share * simple_loss(pruned, batch), chosen), strict=True):
            t -= g
    return unet, hook, state, total


def set_gradients(unet, values):
    for parameter, value in zip((p for p in unet.parameters() if p.requires_grad), values, strict=True):
        parameter.grad = value.clone()


def inner(unet, direction):
    gradients = [p.grad for p in unet.parameters() if p.requires_grad]
    return float(sum((g * h).sum() for g, h in zip(gradients, direction, strict=True)))


def test_a_gradient_that_would_undo_the_forgetting_loses_that_part(projected):
    unet, hook, state, direction = projected
    across = [torch.randn(h.shape, generator=torch.Generator().manual_seed(1)) for h in direction]
    set_gradients(unet, [a - 3 * h for a, h in zip(across, direction, strict=True)])
    hook.after_backward(state)
    for mine, wanted in zip(hook.direction, direction, strict=True):
        torch.testing.assert_close(mine, wanted)
    length = sum(float(h.square().sum()) for h in direction)
    assert abs(inner(unet, direction)) < 1e-3 * length


def test_an_agreeing_gradient_and_steps_between_stay_as_they_are(projected):
    unet, hook, state, direction = projected
    set_gradients(unet, direction)
    hook.after_backward(state)
    assert all(
        torch.equal(p.grad, h)
        for p, h in zip((p for p in unet.parameters() if p.requires_grad), direction, strict=True)
    )
    opposed = [-h for h in direction]
    set_gradients(unet, opposed)
    state.step = 1
    hook.after_backward(state)
    assert all(
        torch.equal(p.grad, h) for p, h in zip((p for p in unet.parameters() if p.requires_grad), opposed, strict=True)
    )
    state.step = 2
    hook.after_backward(state)
    assert abs(inner(unet, direction)) < 1e-6


def test_projection_changes_the_result_and_both_are_seeded(unet, concept, make_context, weights):
    results = [
        weights(
            scissorhands(
                copy.deepcopy(unet),
                concept,
                ScissorHandsOptions(lr=1e-3, batch=5, epochs=2, quantile=0.9, project_every=every),
                make_context(),
            ).unet
        )
        for every in (0, 0, 1)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
