"""ESD: identities of the target, its limits, and that training moves only what it may."""

import copy

import pytest
import torch
import torch.nn.functional as F

from shared.diffusion.erasers.draws import DrawnBatch
from shared.diffusion.erasers.esd import EsdOptions, esd, esd_loss, esd_target
from shared.diffusion.erasers.noising import predict
from shared.diffusion.subsets import train_only


@pytest.fixture
def drawn(noised_batch, states):
    concept = states(["a circle"]).expand(3, -1, -1)
    null = states([""]).expand(3, -1, -1)
    return DrawnBatch(noised_batch.latents, noised_batch.timesteps, concept, null, noised_batch.prompt)


def test_target_without_guidance_is_the_empty_prompt(other, drawn):
    target = esd_target(other, drawn.latents, drawn.timesteps, drawn.concept, drawn.null, eta=0.0)
    torch.testing.assert_close(target, predict(other, drawn.latents, drawn.timesteps, drawn.null))
    assert not target.requires_grad


def test_target_of_eta_minus_one_is_the_concept_itself(other, drawn):
    target = esd_target(other, drawn.latents, drawn.timesteps, drawn.concept, drawn.null, eta=-1.0)
    with_concept = predict(other, drawn.latents, drawn.timesteps, drawn.concept)
    torch.testing.assert_close(target, with_concept, atol=1e-5, rtol=1e-5)


def test_target_moves_away_by_eta_times_the_guidance(other, drawn):
    without = predict(other, drawn.latents, drawn.timesteps, drawn.null)
    with_concept = predict(other, drawn.latents, drawn.timesteps, drawn.concept)
    for eta in (0.5, 1.0, 3.0):
        target = esd_target(other, drawn.latents, drawn.timesteps, drawn.concept, drawn.null, eta)
        torch.testing.assert_close(target, without - eta * (with_concept - without), atol=1e-5, rtol=1e-5)


def test_loss_of_the_unchanged_student_is_the_squared_guidance(unet, drawn):
    """theta = theta_0: MSE(eps_c, eps_0 - eta g) with eps_c = eps_0 + g is (1 + eta)^2 mean g^2."""
    with torch.no_grad():
        without = predict(unet, drawn.latents, drawn.timesteps, drawn.null)
        difference = predict(unet, drawn.latents, drawn.timesteps, drawn.concept) - without
        for eta in (0.0, 1.0, 2.0):
            expected = (1 + eta) ** 2 * difference.square().mean()
            torch.testing.assert_close(esd_loss(unet, unet, drawn, eta), expected, atol=1e-7, rtol=1e-3)


def test_loss_is_a_mean_over_images(unet, other, drawn):
    whole = esd_loss(unet, other, drawn, 1.0)
    parts = [esd_loss(unet, other, DrawnBatch(*(field[i : i + 1] for field in drawn)), 1.0) for i in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize("trains", ["cross_attention", "non_cross_attention"])
def test_training_moves_only_its_subset(trains, unet, concept, context):
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    options = EsdOptions(trains=trains, lr=1e-3, batch=2, iterations=2, draw_steps=4)
    erased = esd(unet, concept, options, context)
    assert erased.unet is unet
    assert erased.fit.steps == 2
    moved = {name for name, p in unet.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all((".attn2." in name) == (trains == "cross_attention") for name in moved)


def test_steps_on_one_batch_lower_the_loss(unet, drawn):
    frozen = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.Adam(train_only(unet, "cross_attention"), lr=1e-3)
    losses = []
    for _ in range(10):
        losses.append(esd_loss(unet, frozen, drawn, 1.0))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_training_is_seeded(unet, concept, make_context, weights):
    options = EsdOptions(lr=1e-3, batch=2, iterations=3, draw_steps=4)
    first, again, other_seed = (
        weights(esd(copy.deepcopy(unet), concept, options, make_context(seed)).unet) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)


def test_a_killed_run_ends_in_the_same_weights(unet, concept, make_context, weights, tmp_path, monkeypatch):
    """The step after the checkpoint draws with the restored student and generator."""
    options = EsdOptions(lr=1e-3, batch=2, iterations=6, draw_steps=4)
    whole = weights(esd(copy.deepcopy(unet), concept, options, make_context()).unet)
    monkeypatch.setattr("shared.training.resume.Resume.is_due", lambda self: True)
    calls = {"left": 4}

    def dies(*arguments):
        calls["left"] -= 1
        if not calls["left"]:
            raise KeyboardInterrupt
        return F.mse_loss(*arguments)

    stored = make_context(workdir=tmp_path, key="k")
    with monkeypatch.context() as patch:
        patch.setattr("shared.diffusion.erasers.esd.F.mse_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            esd(copy.deepcopy(unet), concept, options, stored)
    resumed = esd(copy.deepcopy(unet), concept, options, stored)
    assert torch.equal(weights(resumed.unet), whole)
