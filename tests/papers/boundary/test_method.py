"""Boundary shrink and expand: FGSM, neighbours, the shadow class."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from papers.boundary.method import (
    AttackOptions,
    ExpandOptions,
    ShrinkOptions,
    expand,
    fgsm,
    narrow,
    neighbours,
    shrink,
    widen,
)
from shared.models.build import build

SETTING = {"lr": 1e-3, "epochs": 2, "batch": 16}


def test_fgsm_of_a_linear_softmax_is_exact():
    """Gradient of the loss at x is W'(p - e_y)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    images, labels = torch.rand(6, 3, 2, 2), torch.randint(0, 4, (6,))
    p = model(images).softmax(1)
    direction = ((p - F.one_hot(labels, 4)) @ model[1].weight).sign().view_as(images)
    expected = (images + 0.1 * direction).clamp(0, 1)
    found = fgsm(model, images, labels, 0.1, (0.0, 1.0), grid=False)
    torch.testing.assert_close(found, expected)
    on_grid = fgsm(model, images, labels, 0.1, (0.0, 1.0), grid=True)
    torch.testing.assert_close(on_grid * 255, (on_grid * 255).round(), atol=1e-4, rtol=0)
    assert (on_grid - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_without_a_step_the_neighbour_is_the_models_own_prediction(model, forget, retain, context):
    options = ShrinkOptions(**SETTING, epsilon=0.0, clip="data", grid=False)
    with torch.no_grad():
        own = model.eval()(forget.images).argmax(1)
    before = (own == forget.labels).float().mean()
    trained = shrink(copy.deepcopy(model), forget, retain, options, context)
    assert context.extras["crossing_rate"] == pytest.approx((own != forget.labels).float().mean().item())
    assert context.extras["neighbour_histogram"] == torch.bincount(own, minlength=3).tolist()
    after = (trained.eval()(forget.images).argmax(1) == forget.labels).float().mean()
    assert after >= before - 1e-6  # self-training does not forget


def test_large_steps_cross_the_boundary_and_forget(model, forget, retain, context):
    options = ShrinkOptions(lr=0.01, epochs=15, batch=16, epsilon=0.5, clip="data", grid=False)
    one_class = forget.subset((forget.labels == 0).nonzero()[:, 0])
    trained = shrink(copy.deepcopy(model), one_class, retain, options, context).eval()
    assert context.extras["crossing_rate"] > 0.9
    assert (trained(one_class.images).argmax(1) == 0).float().mean() < 0.2


def test_neighbours_come_from_the_frozen_original(model, forget, retain, context):
    """Labels do not follow the trained copy: the second epoch's are the first's, whatever lr
    does."""
    options = ShrinkOptions(lr=0.05, epochs=3, batch=16, epsilon=0.3, clip="data", grid=False)
    first = copy.deepcopy(model)
    shrink(first, forget, retain, options, context)
    histogram = context.extras["neighbour_histogram"]
    attacked = fgsm(model.eval(), forget.images, forget.labels, 0.3, _range(forget), grid=False)
    assert histogram == torch.bincount(model(attacked).argmax(1), minlength=3).tolist()


def _range(data):
    return float(data.images.min()), float(data.images.max())


@pytest.mark.parametrize("init", ["xavier", "default"])
def test_widening_leaves_the_logits_to_the_bit_and_narrowing_undoes_it(init, model, forget):
    model.eval()
    with torch.no_grad():
        before = model(forget.images)
        start = copy.deepcopy(model.state_dict())
        widen(model, init, torch.Generator().manual_seed(0))
        wide = model(forget.images)
        assert wide.shape[1] == 4
        # a matrix product may round differently for another width: compare row by row of the layer
        assert torch.equal(model.fc.weight[:-1], start["fc.weight"])
        torch.testing.assert_close(wide[:, :3], before, atol=1e-6, rtol=1e-6)
        narrow(model)
        assert torch.equal(model(forget.images), before)
        assert all(torch.equal(v, start[k]) for k, v in model.state_dict().items())


def test_shadow_row_initialisation():
    for init, bound in (("xavier", None), ("default", 1 / 20)):
        model = nn.Module()
        model.fc = nn.Linear(400, 9)
        widen(model, init, torch.Generator().manual_seed(0))
        row, bias = model.fc.weight[-1], model.fc.bias[-1]
        if bound is None:
            assert abs(row.std().item() - (2 / 410) ** 0.5) < 0.008
            assert bias == 0
        else:
            assert row.abs().max() <= bound


def test_expanding_fills_the_shadow_class_and_prunes_it(model, forget, retain, new_context):
    options = ExpandOptions(lr=0.02, epochs=8, batch=16)
    context = new_context()
    pruned = expand(copy.deepcopy(model), forget, retain, options, context).eval()
    assert context.extras["shadow_share"] > 0.9
    assert pruned(forget.images).shape[1] == 3
    kept = expand(
        copy.deepcopy(model), forget, retain,
        ExpandOptions(lr=0.02, epochs=8, batch=16, prune=False), new_context(),
    ).eval()  # fmt: skip
    assert kept(forget.images).shape[1] == 4
    torch.testing.assert_close(kept(forget.images)[:, :3], pruned(forget.images), atol=1e-5, rtol=1e-5)


def test_neighbour_row_measures_distances_and_unlearns_nothing(model, forget, retain, new_context):
    """Against histograms counted by hand; Retrain is another network here."""
    one_class = forget.subset((forget.labels == 0).nonzero()[:, 0])
    retrained = copy.deepcopy(model)
    with torch.no_grad():
        retrained.fc.bias[0] -= 100  # never says 0
    context = new_context()
    context = dataclasses.replace(context, stages=lambda name: (retrained, None) if name == "retrain" else 1 / 0)
    options = AttackOptions(batch=16, epsilon=0.4, clip="data", grid=False)
    before = copy.deepcopy(model.state_dict())
    unlearned = neighbours(model, one_class, retain, options, context)
    assert all(torch.equal(value, before[name]) for name, value in unlearned.state_dict().items())
    measured = {metric.name: metric.value for metric in context.measured}
    said = torch.bincount(retrained.eval()(one_class.images).argmax(1), minlength=3) / 10
    assert said[0] == 0
    found = torch.tensor(context.extras["neighbour_histogram"]) / 10
    assert measured["neighbour_distance"] == pytest.approx((found - said).abs().sum().item())
    uniform = torch.tensor([0.0, 0.5, 0.5])
    assert measured["uniform_distance"] == pytest.approx((uniform - said).abs().sum().item())
    assert context.extras["retrain_histogram"] == (said * 10).round().int().tolist()
    assert measured["crossing_rate"] == pytest.approx(100 - 10 * context.extras["neighbour_histogram"][0])


def test_rates_are_recorded_in_percent(model, forget, retain, new_context):
    for method, options, name in (
        (shrink, ShrinkOptions(**SETTING), "crossing_rate"),
        (expand, ExpandOptions(**SETTING), "shadow_share"),
    ):
        context = new_context()
        method(copy.deepcopy(model), forget, retain, options, context)
        (metric,) = context.measured
        assert (metric.name, metric.unit) == (name, "%")
        assert metric.value == pytest.approx(100 * context.extras[name])


def test_batch_norm_switch(model, forget, retain, new_context):
    for bn_eval in (False, True):
        options = ShrinkOptions(**SETTING, bn_eval=bn_eval)
        trained = shrink(copy.deepcopy(model), forget, retain, options, new_context())
        before = dict(model.named_buffers())
        same = all(torch.equal(b, before[n]) for n, b in trained.named_buffers())
        assert same == bn_eval


@pytest.mark.parametrize("method", [shrink, expand])
def test_with_hardly_a_step_only_batch_norm_changes(method, model, forget, retain, new_context):
    """lr -> 0: the weights stay, the running statistics of D_f's class do not, so accuracy elsewhere still moves."""
    make = ShrinkOptions if method is shrink else ExpandOptions
    trained = method(copy.deepcopy(model), forget, retain, make(lr=1e-12, epochs=3, batch=16), new_context())
    start = dict(model.named_parameters())
    for name, value in trained.named_parameters():
        torch.testing.assert_close(value, start[name], atol=1e-9, rtol=0)
    before = dict(model.named_buffers())
    moved = [name for name, value in trained.named_buffers() if not torch.equal(value, before[name])]
    assert any("running_mean" in name for name in moved)


def test_parameter_counts_of_the_papers_network():
    sizes = [sum(p.numel() for p in build(name, 10, 3, seed=0).parameters()) for name in ("all_cnn_half", "all_cnn")]
    assert sizes == [406_810, 1_620_010]
