"""The saliency mask: counts, order, nesting, sign, and what it does to training."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from papers.salun.method import (
    MaskedOptions,
    SalunOptions,
    masked,
    random_mask,
    saliency_mask,
    salun,
)
from shared.classification.options import RelabelOptions
from shared.classification.relabel import random_label

SETTING = {"lr": 0.02, "epochs": 2, "batch": 16}


def flat(mask):
    return torch.cat([part.flatten() for part in mask.values()])


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def outside(model, mask):
    return torch.cat([p.detach()[~mask[name]] for name, p in model.named_parameters()])


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_exactly_int_q_n_weights_are_kept(keep, model, forget, context):
    total = sum(p.numel() for p in model.parameters())
    for mask in (
        saliency_mask(model, forget, keep, 16, context),
        random_mask(model, keep, context),
    ):
        assert flat(mask).sum() == int(keep * total)
        assert {n: m.shape for n, m in mask.items()} == {n: p.shape for n, p in model.named_parameters()}


def test_masks_nest(model, forget, context):
    keeps = [0.1, 0.3, 0.5, 0.9]
    for make in (
        lambda q: saliency_mask(model, forget, q, 16, context),
        lambda q: random_mask(model, q, context),
    ):
        masks = [flat(make(q)) for q in keeps]
        for small, large in itertools.pairwise(masks):
            assert not (small & ~large).any()


def test_gradients_are_added_with_their_sign_over_batches(model, forget, context):
    """|sum of batch gradients|, not the sum of absolute values, in eval mode."""
    model.eval()
    total = torch.zeros_like(parameters(model))
    for batch in forget.batches(16, context.generator("saliency mask")):
        loss = F.cross_entropy(model(batch.images), batch.labels)
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    rank = (-total.abs()).argsort(stable=True).argsort()
    expected = rank < int(0.2 * len(total))
    model.train()  # the mask must not depend on the mode that it finds
    assert torch.equal(flat(saliency_mask(model, forget, 0.2, 16, context)), expected)


def test_mask_pass_leaves_weights_and_statistics_alone(model, forget, context):
    before = copy.deepcopy(model.state_dict())
    saliency_mask(model, forget, 0.5, 16, context)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert context.meter.steps == 2


def test_keeping_everything_is_random_labelling_to_the_bit(model, forget, retain, new_context):
    plain = random_label(copy.deepcopy(model), forget, retain, RelabelOptions(**SETTING), new_context())
    options = SalunOptions(**SETTING, keep=1.0, mask_decay_leak=False)
    whole = salun(copy.deepcopy(model), forget, retain, options, new_context())
    for (name, a), b in zip(plain.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_keeping_nothing_is_the_original_but_for_batch_norm(model, forget, retain, context):
    options = SalunOptions(**SETTING, keep=0.0, mask_decay_leak=False)
    still = salun(copy.deepcopy(model), forget, retain, options, context)
    assert torch.equal(parameters(still), parameters(model))
    buffers = dict(still.named_buffers())
    moved = [n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])]
    assert any("running_mean" in name for name in moved)


def test_clean_variant_holds_masked_weights_to_the_bit_and_leak_shrinks_them(model, forget, retain, new_context):
    mask = saliency_mask(model, forget, 0.3, 256, new_context())
    setting = {**SETTING, "keep": 0.3, "weight_decay": 0.05}
    for leak in (False, True):
        options = SalunOptions(**setting, mask_decay_leak=leak)
        unlearned = salun(copy.deepcopy(model), forget, retain, options, new_context())
        kept, start = outside(unlearned, mask), outside(model, mask)
        if leak:
            assert (kept.abs() <= start.abs()).all()
            assert kept.norm() < 0.995 * start.norm()
        else:
            assert torch.equal(kept, start)
        inside = {name: ~part for name, part in mask.items()}
        assert not torch.equal(outside(unlearned, inside), outside(model, inside))


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("finetune", SETTING),
        ("random_label", SETTING),
        ("gradient_ascent", {"lr": 0.01, "epochs": 1, "batch": 16}),
        ("iu_official", {"alpha": 3.0, "num": 10}),
        ("scrub", {"epochs": 1, "batch": 16, "max_epochs": 1, "decay_epochs": []}),
    ],
)
@pytest.mark.parametrize("kind", ["saliency", "random"])
def test_any_method_runs_under_a_mask(base, options, kind, model, forget, retain, new_context):
    settings = MaskedOptions(base=base, base_options=options, mask=kind, keep=0.3)
    unlearned = masked(copy.deepcopy(model), forget, retain, settings, new_context())
    if kind == "random":
        mask = random_mask(model, 0.3, new_context())
    else:
        mask = saliency_mask(model, forget, 0.3, 256, new_context())
    assert torch.equal(outside(unlearned, mask), outside(model, mask))
    assert not torch.equal(parameters(unlearned), parameters(model))


def test_masked_random_labelling_is_salun(model, forget, retain, new_context):
    settings = MaskedOptions(base="random_label", base_options=SETTING, keep=0.2)
    wrapped = masked(copy.deepcopy(model), forget, retain, settings, new_context())
    options = SalunOptions(**SETTING, keep=0.2, mask_decay_leak=settings.mask_decay_leak)
    direct = salun(copy.deepcopy(model), forget, retain, options, new_context())
    assert torch.equal(parameters(wrapped), parameters(direct))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base": "finetun"}, "did you mean 'finetune'"),
        ({"base": "finetune", "base_options": {"lr": 0.1, "epohcs": 3}}, "did you mean 'epochs'"),
        ({"base": "finetune", "base_options": {"lr": 0.1}, "keep": 1.5}, "less than or equal to 1"),
    ],
)
def test_bad_options_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        MaskedOptions(**values)
