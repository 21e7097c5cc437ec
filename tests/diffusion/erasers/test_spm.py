"""SPM's membranes: nothing at scale 0, their product as weights, gates a prompt; its loss, anchors and schedule."""

import copy

import pytest
import torch
from transformers import get_cosine_with_hard_restarts_schedule_with_warmup

from shared.diffusion.erasers.draws import StudentDraws
from shared.diffusion.erasers.esd import esd_loss
from shared.diffusion.erasers.membranes import Membranes
from shared.diffusion.erasers.noising import predict
from shared.diffusion.erasers.spm import (
    Restarts,
    SpmBatch,
    SpmOptions,
    WithAnchors,
    likeness,
    random_anchors,
    spm,
    spm_loss,
)
from shared.training.options import ScheduleOptions

SETTING = {"lr": 1e-3, "iterations": 4, "batch": 2, "draw_steps": 4, "warmup": 1.0, "restarts": 1}


def run(unet, batch):
    with torch.no_grad():
        return predict(unet, batch.latents, batch.timesteps, batch.states)


def opened(membranes, seed=0):
    """Membranes that do something: their second map starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in membranes.named_parameters():
            if ".up." in name:
                parameter.normal_(0, 0.1, generator=generator)
    return membranes


def test_fresh_membranes_are_the_identity(unet, noised_batch):
    before = run(unet, noised_batch)
    membranes = Membranes(unet)
    torch.testing.assert_close(run(unet, noised_batch), before, atol=0, rtol=0)
    layers = [m for m in unet.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(membranes.adapters) == len(layers)
    assert not any("adapters" in name for name, _ in unet.named_parameters())


def test_scale_zero_is_the_network_alone_and_detaching_too(unet, noised_batch):
    before = run(unet, noised_batch)
    membranes = opened(Membranes(unet))
    assert not torch.allclose(run(unet, noised_batch), before)
    with membranes.scaled(0.0):
        assert torch.equal(run(unet, noised_batch), before)
    assert membranes.scale == 1.0
    membranes.detach()
    assert torch.equal(run(unet, noised_batch), before)


@pytest.mark.parametrize(("rank", "scale"), [(1, 1.0), (2, 0.5)])
def test_fused_weights_predict_as_the_membranes(rank, scale, unet, noised_batch):
    membranes = opened(Membranes(unet, rank=rank, alpha=1.0))
    membranes.scale = scale
    attached = run(unet, noised_batch)
    names = list(unet.state_dict())
    membranes.fuse()
    torch.testing.assert_close(run(unet, noised_batch), attached, atol=1e-4, rtol=1e-3)
    assert list(unet.state_dict()) == names


def test_a_scale_for_every_image_is_that_image_s_own(unet, noised_batch):
    membranes = opened(Membranes(unet))
    outputs = {}
    for scale in (0.0, 0.3, 1.0):
        with membranes.scaled(scale):
            outputs[scale] = run(unet, noised_batch)
    with membranes.scaled(torch.tensor([0.0, 0.3, 1.0])):
        mixed = run(unet, noised_batch)
        doubled = predict(
            unet,
            noised_batch.latents.repeat(2, 1, 1, 1),
            noised_batch.timesteps.repeat(2),
            noised_batch.states.repeat(2, 1, 1),
        ).detach()
    for row, scale in enumerate((0.0, 0.3, 1.0)):
        torch.testing.assert_close(mixed[row], outputs[scale][row], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(doubled, mixed.repeat(2, 1, 1, 1), atol=1e-5, rtol=1e-4)
    with membranes.scaled(torch.tensor([1.0])), pytest.raises(ValueError, match="cannot become weights"):
        membranes.fuse()


def batch_of(unet, abar, states, options):
    draws = StudentDraws(
        unet, states(["a circle"]), states([""]), abar, (4, 8, 8), options, torch.Generator().manual_seed(0)
    )
    return next(WithAnchors(draws, options.num_anchors, torch.Generator().manual_seed(1)))


def test_fresh_membranes_cost_what_esd_costs(unet, abar, states):
    """The anchors are where they were: only the erasing term is left, and it is ESD's."""
    options = SpmOptions(**SETTING)
    membranes = Membranes(unet)
    batch = batch_of(unet, abar, states, options)
    assert batch.anchors.shape == (2, 4, 8, 16)
    torch.testing.assert_close(spm_loss(unet, membranes, batch, options), esd_loss(unet, unet, batch.drawn, 1.0))


def test_opened_membranes_pay_for_the_anchors(unet, abar, states):
    options = SpmOptions(**SETTING)
    batch = batch_of(unet, abar, states, options)
    membranes = opened(Membranes(unet))
    drawn = batch.drawn
    original = copy.deepcopy(unet)
    for module in original.modules():
        module._forward_hooks.clear()
    expected = esd_loss(unet, original, drawn, 1.0)
    squares = []
    for row in range(2):
        for anchor in batch.anchors[row]:
            both = [
                predict(n, drawn.latents[row : row + 1], drawn.timesteps[row], anchor[None]) for n in (unet, original)
            ]
            squares.append((both[0] - both[1]).square().mean())
    expected = expected + 1000 * torch.stack(squares).mean()
    torch.testing.assert_close(spm_loss(unet, membranes, SpmBatch(*batch), options), expected, rtol=1e-3, atol=1e-4)


def test_random_anchors_have_the_concept_s_length_and_no_direction(states):
    concept = states(["a circle"])[0]
    anchors = random_anchors(concept, 400, torch.Generator().manual_seed(0))
    lengths = anchors.flatten(1).norm(dim=1) / concept.norm()
    assert 0.8 <= lengths.min() < 0.85
    assert 1.15 < lengths.max() <= 1.2
    cosines = torch.cosine_similarity(anchors.flatten(1), concept.flatten()[None])
    assert abs(cosines.mean()) < 0.02
    # a direction is the likelier to be refused the more it resembles the concept
    one_wide = random_anchors(torch.ones(1, 1), 50, torch.Generator().manual_seed(0))
    assert (one_wide < 0).all()


def test_schedule_is_the_library_s_cosine_with_restarts():
    schedule = Restarts(ScheduleOptions(unit="step"), 1, warmup=5.0, cycles=3)
    assert schedule.per_step
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], 1.0)
    library = get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 5, 50, num_cycles=3)
    for step in range(50):
        assert schedule.factor(0, step, 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        library.step()


def test_fused_training_changes_weights_and_keeps_their_names(unet, concept, make_context, weights):
    first, again = (spm(copy.deepcopy(unet), concept, SpmOptions(**SETTING), make_context()) for _ in range(2))
    assert torch.equal(weights(first.unet), weights(again.unet))
    assert not torch.equal(weights(first.unet), weights(unet))
    assert list(first.unet.state_dict()) == list(unet.state_dict())
    assert first.fit.steps == 4


def test_prompts_resemble_the_concept_by_words_and_states(context):
    scales = likeness(["circle", "a red circle", "a square"], "circle", context)
    assert float(scales[0]) == pytest.approx(1.0, abs=1e-5)
    assert 0 < float(scales[1]) < 1
    assert scales[2] == 0


def test_gates_are_open_for_the_concept_alone(unet, concept, context, draw):
    original = copy.deepcopy(unet)
    erased = spm(unet, concept, SpmOptions(**SETTING, drawing="gated"), context)
    prompts = ["circle", "a square"]
    mixed, own = draw(erased.unet, erased.guidance, prompts), draw(original, None, prompts)
    torch.testing.assert_close(mixed[1], own[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[0], own[0], atol=1e-4)
    # outside a drawing the membranes are on, whatever the batch
    other_batch = draw(erased.unet, None, ["a square"])
    assert not torch.allclose(other_batch[0], own[1], atol=1e-4)
