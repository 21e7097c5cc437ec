"""SalUn-soft: the schedule of k, the soft threshold, its anchors and limits."""

import copy

import pytest
import torch

from papers.salun.method import Proximal, SalunSoftOptions, salun_soft
from shared.classification.options import RelabelOptions
from shared.classification.relabel import random_label
from shared.training.state import LoopState

SETTING = {"lr": 0.02, "epochs": 2, "batch": 16}


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def proximal(model, forget, retain, **options):
    return Proximal(model, forget, retain, SalunSoftOptions(**{**SETTING, **options}))


def state(model, epoch=0, step_in_epoch=0):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return LoopState(model, optimizer, 2, torch.Generator(), epoch=epoch, step_in_epoch=step_in_epoch)


def test_ratio_zero_shrinks_nothing(model, forget, retain, new_context):
    """k = 0 makes the released code fail; here it is plain random labelling."""
    options = SalunSoftOptions(**SETTING, mask_ratio=0.0, interleave="sequential")
    soft = salun_soft(copy.deepcopy(model), forget, retain, options, new_context())
    plain = random_label(copy.deepcopy(model), forget, retain, RelabelOptions(**SETTING), new_context())
    assert torch.equal(parameters(soft), parameters(plain))


def test_number_of_snapped_weights_follows_the_released_schedule(model, forget, retain):
    """T = 2 epochs of 2 + 4 batches; s = epoch * 6 + 1, in sequential's retain half + its index."""
    mixed = proximal(model, forget, retain, mask_ratio=0.6)
    assert [mixed.num_snapped(e, i, 1000) for e in (0, 1) for i in (0, 4)] == [
        int(0.6 * (11 / 12 * 1000)),
        int(0.6 * (11 / 12 * 1000)),
        int(0.6 * (5 / 12 * 1000)),
        int(0.6 * (5 / 12 * 1000)),
    ]
    svhn = proximal(model, forget, retain, mask_ratio=0.6, interleave="sequential")
    assert [svhn.num_snapped(1, i, 1000) for i in (0, 1, 2, 5)] == [
        int(0.6 * ((12 - s) / 12 * 1000)) for s in (7, 7, 7, 10)
    ]


def test_soft_threshold_around_the_anchor(model, forget, retain):
    soft = proximal(model, forget, retain, mask_ratio=0.5, anchor="original")
    start = parameters(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    moved = parameters(model) - start
    soft.after_step(state(model))
    num = int(0.5 * 11 / 12 * len(start))
    threshold = moved.abs().sort().values[num - 1]
    expected = moved.sign() * (moved.abs() - threshold).clamp(min=0)
    torch.testing.assert_close(parameters(model) - start, expected, atol=1e-6, rtol=1e-5)
    assert (parameters(model) == start).sum() >= num


def test_anchor_is_reread_each_epoch_or_is_the_original(model, forget, retain):
    start = [p.detach().clone() for p in model.parameters()]
    for anchor in ("epoch", "original"):
        net = copy.deepcopy(model)
        soft = proximal(net, forget, retain, mask_ratio=1.0, anchor=anchor)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(1.0)
        soft.on_epoch_start(state(net))
        here = [p.detach().clone() for p in net.parameters()]
        for kept, wanted in zip(soft.state_dict()["anchors"], here if anchor == "epoch" else start, strict=True):
            assert torch.equal(kept, wanted)


@pytest.mark.parametrize("interleave", ["mixed", "sequential"])
def test_many_weights_stay_where_they_were(interleave, model, forget, retain, context):
    options = SalunSoftOptions(lr=0.02, epochs=1, batch=16, mask_ratio=0.9, interleave=interleave)
    unlearned = salun_soft(copy.deepcopy(model), forget, retain, options, context)
    share = (parameters(unlearned) == parameters(model)).float().mean()
    # the last step of the mixed stream still snaps 0.9 * 5/6 of the weights, of the sequential 0.9
    # * 2/6
    assert share >= (0.74 if interleave == "mixed" else 0.29)
    assert share < 1
