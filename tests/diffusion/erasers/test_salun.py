"""SalUn on a text-to-image model, its mask, and the erasers that share its loss."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from shared.diffusion.erasers.erasediff import EraseDiffOptions, Levels, erasediff, erasediff_loss
from shared.diffusion.erasers.images import Pairs, one_pass
from shared.diffusion.erasers.noising import predict, simple_loss
from shared.diffusion.erasers.relabel import relabel_loss
from shared.diffusion.erasers.saliency import gradient_scores, top_mask
from shared.diffusion.erasers.salun import SalunOptions, guided_loss, saliency_mask, salun, salun_loss
from shared.diffusion.subsets import select, train_only
from shared.training.loop import fit

SETTING = {"lr": 1e-3, "epochs": 1, "batch": 5, "mask_batch": 4}


@pytest.fixture
def pair(concept, abar):
    return next(Pairs(concept.forget, concept.retained, abar, 3, torch.Generator().manual_seed(0)))


def flat(mask):
    return torch.cat([part.flatten() for part in mask.values()])


def test_relabelling_as_itself_costs_nothing(unet, pair):
    same = pair._replace(anchor=pair.forget.states)
    loss = relabel_loss(unet, same)
    assert loss == 0
    train_only(unet, "all")
    gradients = torch.autograd.grad(relabel_loss(unet, same), unet.parameters(), allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)


def test_relabel_target_is_the_student_s_own_and_detached(unet, pair):
    train_only(unet, "cross_attention")
    target = predict(unet, pair.forget.latents, pair.forget.timesteps, pair.anchor).detach()
    expected = F.mse_loss(predict(unet, pair.forget.latents, pair.forget.timesteps, pair.forget.states), target)
    parameters = [p for p in unet.parameters() if p.requires_grad]
    torch.testing.assert_close(relabel_loss(unet, pair), expected)
    for mine, wanted in zip(
        torch.autograd.grad(relabel_loss(unet, pair), parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted)


def test_salun_loss_is_linear_in_alpha(unet, pair):
    retain = simple_loss(unet, pair.retain)
    for alpha in (0.0, 0.1, 2.0):
        torch.testing.assert_close(salun_loss(unet, pair, alpha), relabel_loss(unet, pair) + alpha * retain)


def test_guided_loss_without_guidance_is_the_denoising_loss(unet, pair, states):
    null = states([""])
    torch.testing.assert_close(guided_loss(unet, pair.forget, null, 0.0), -simple_loss(unet, pair.forget))
    whole = guided_loss(unet, pair.forget, null, 7.5)
    with_prompt = predict(unet, pair.forget.latents, pair.forget.timesteps, pair.forget.states)
    without = predict(unet, pair.forget.latents, pair.forget.timesteps, null.expand(3, -1, -1))
    torch.testing.assert_close(whole, -F.mse_loss(8.5 * with_prompt - 7.5 * without, pair.forget.noise))


def test_masks_hold_exactly_their_share_and_nest(unet, concept, make_context):
    total = sum(p.numel() for p in unet.parameters())
    masks = [
        flat(saliency_mask(unet, concept, SalunOptions(**SETTING, keep=q), make_context())) for q in (0.0, 0.1, 0.5, 1)
    ]
    assert [int(m.sum()) for m in masks] == [int(q * total) for q in (0.0, 0.1, 0.5, 1)]
    for small, large in itertools.pairwise(masks):
        assert not (small & ~large).any()
    assert all(p.grad is None for p in unet.parameters())


@pytest.mark.parametrize("accumulate", ["signed", "absolute"])
def test_batches_gradients_are_added_before_or_after_their_absolute_value(
    accumulate, unet, concept, context, abar, states
):
    options = SalunOptions(**SETTING, keep=0.2, accumulate=accumulate)
    train_only(unet, "all")
    parameters = select(unet, "all")
    total = torch.zeros(sum(p.numel() for p in parameters.values()))
    for batch in one_pass(concept.forget, abar, 4, context.generator("saliency mask"), False):
        loss = guided_loss(unet, batch, states([""]), 7.5)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(parameters.values()))])
        total += gradient if accumulate == "signed" else gradient.abs()
    expected = top_mask({"all": total.abs()}, 0.2)["all"]
    assert torch.equal(flat(saliency_mask(unet, concept, options, context)), expected)


def test_gradients_are_clipped_a_batch():
    parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    losses = [(parameter * torch.tensor([30.0, 40.0])).sum(), (parameter * torch.tensor([0.3, -0.4])).sum()]
    scores = gradient_scores({"p": parameter}, losses, clip=1.0)["p"]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.4]), atol=1e-5, rtol=1e-5)
    plain = gradient_scores({"p": parameter}, [(parameter * torch.tensor([30.0, -40.0])).sum()])["p"]
    torch.testing.assert_close(plain, torch.tensor([30.0, 40.0]))


def test_only_masked_weights_of_the_subset_move(unet, concept, make_context):
    for trains in ("all", "cross_attention"):
        net = copy.deepcopy(unet)
        options = SalunOptions(**SETTING, trains=trains, keep=0.3)
        mask = saliency_mask(copy.deepcopy(unet), concept, options, make_context())
        salun(net, concept, options, make_context())
        moved = 0
        for (name, after), before in zip(net.named_parameters(), unet.parameters(), strict=True):
            allowed = mask[name] if trains == "all" or ".attn2." in name else torch.zeros_like(mask[name])
            assert torch.equal(after[~allowed], before[~allowed]), name
            moved += int((after != before).sum())
        assert moved > 0


def test_a_full_mask_is_no_mask(unet, concept, make_context, weights):
    results = [
        weights(salun(copy.deepcopy(unet), concept, SalunOptions(**SETTING, **change), make_context()).unet)
        for change in ({"keep": 1.0}, {"keep": 0.1, "mask_unused": True})
    ]
    assert torch.equal(*results)


class Recording:
    """Levels that note what each of their phases did."""

    def __init__(self, inner):
        self.levels, self.phases = Levels(inner), []

    def on_phase_start(self, state):
        self.levels.on_phase_start(state)
        start = torch.cat([p.detach().flatten() for p in state.model.parameters() if p.requires_grad])
        self.phases.append((self.levels.outer, float(self.levels.inner_loss), start))


def test_erasediff_phases_reset_to_the_epoch_s_start(unet, concept, abar):
    """2 epochs of K = 2: inner, outer, inner, outer; every outer phase starts where its epoch did."""
    train_only(unet, "cross_attention")
    record = Recording(inner=2)
    optimizer = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=1e-3)
    result = fit(
        unet,
        lambda _, generator: Pairs(concept.forget, concept.retained, abar, 5, generator),
        lambda net, batch: erasediff_loss(net, batch, record.levels, 0.1),
        optimizer=optimizer,
        epochs=8,
        generator=torch.Generator().manual_seed(0),
        on_epoch_start=record.on_phase_start,
    )
    outers, inner_losses, starts = zip(*record.phases, strict=True)
    assert outers == (False, True) * 4
    for phase in (1, 3):
        assert torch.equal(starts[phase], starts[0])
    for phase in (5, 7):
        assert torch.equal(starts[phase], starts[4])
    assert not torch.equal(starts[4], starts[0])
    assert not torch.equal(starts[2], starts[0])  # the second inner pass goes on from the first outer one
    for phase in (1, 3, 5, 7):
        assert inner_losses[phase] == pytest.approx(result.history[phase - 1]["loss"])


def test_inner_value_is_a_number_that_shifts_the_outer_loss(unet, pair):
    levels = Levels(1)
    levels.outer, levels.inner_loss = True, torch.tensor(0.25)
    expected = simple_loss(unet, pair.retain) + 0.1 * (relabel_loss(unet, pair) - 0.25)
    torch.testing.assert_close(erasediff_loss(unet, pair, levels, 0.1), expected)
    levels.outer = False
    torch.testing.assert_close(erasediff_loss(unet, pair, levels, 0.1), relabel_loss(unet, pair))


def test_a_killed_erasediff_ends_in_the_same_weights(unet, concept, make_context, weights, tmp_path, monkeypatch):
    options = EraseDiffOptions(lr=1e-3, batch=5, epochs=1)
    whole = weights(erasediff(copy.deepcopy(unet), concept, options, make_context()).unet)
    monkeypatch.setattr("shared.training.resume.Resume.is_due", lambda self: True)
    stored = make_context(workdir=tmp_path, key="k")
    calls = itertools.count(1)

    def dies(net, batch, levels, alpha):
        if next(calls) == 6:  # in the second inner phase
            raise KeyboardInterrupt
        return erasediff_loss(net, batch, levels, alpha)

    with monkeypatch.context() as patch:
        patch.setattr("shared.diffusion.erasers.erasediff.erasediff_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            erasediff(copy.deepcopy(unet), concept, options, stored)
    assert torch.equal(weights(erasediff(copy.deepcopy(unet), concept, options, stored).unet), whole)


def test_anchors_of_the_retain_batch_reach_the_loss(unet, concept, make_context, weights):
    own, drawn = (
        weights(
            salun(
                copy.deepcopy(unet), concept, SalunOptions(**SETTING, anchors=anchors, mask_unused=True), make_context()
            ).unet
        )
        for anchors in ("concept", "retain")
    )
    assert not torch.equal(own, drawn)
    # drawn anchors need none of the concept's own
    without = replace(concept, forget=replace(concept.forget, anchors=None))
    again = salun(
        copy.deepcopy(unet), without, SalunOptions(**SETTING, anchors="retain", mask_unused=True), make_context()
    )
    assert torch.equal(weights(again.unet), drawn)
