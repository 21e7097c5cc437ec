"""Influence unlearning against the recursions written out naively, and its limits."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from shared.classification.influence import (
    IuOfficialOptions,
    IuOptions,
    conjugate_gradients,
    directional,
    gradient_difference,
    iu,
    iu_official,
    loss_gradient,
)
from shared.classification.pruning import apply_mask, omp_mask


def flat(parts):
    return torch.cat([p.detach().flatten() for p in parts]).double()


def sample_gradient(model, image, label):
    loss = F.cross_entropy(model(image[None]), label[None])
    return flat(torch.autograd.grad(loss, list(model.parameters())))


def naive_v(model, forget, retain):
    model.eval()
    means = []
    for data in (forget, retain):
        gradients = [sample_gradient(model, x, y) for x, y in zip(data.images, data.labels, strict=True)]
        means.append(torch.stack(gradients).mean(0))
    return len(forget) / (len(forget) + len(retain)) * (means[0] - means[1])


def naive_official(model, forget, retain, num, kept=1.0):
    """The released recursion, one sample at a time."""
    v = naive_v(model, forget, retain) * kept
    k, o = v.clone(), None
    for index, (image, label) in enumerate(zip(retain.images, retain.labels, strict=True)):
        g = sample_gradient(model, image, label) * kept
        if o is None:
            o = g.clone()
        else:
            t = o @ g
            k -= (k @ g) / (num + t) * o
            o -= t / (num + t) * o
        if index > num:
            break
    return k


def naive_woodfisher(model, forget, retain, num, kept=1.0):
    """o_i = F_{i-1}^-1 g_i with F_0 = identity, dense."""
    samples = list(zip(retain.images, retain.labels, strict=True))[:num]
    gradients = torch.stack([sample_gradient(model, x, y) for x, y in samples]) * kept
    fisher = torch.eye(gradients.shape[1], dtype=torch.float64) + gradients.T @ gradients / len(samples)
    return torch.linalg.solve(fisher, naive_v(model, forget, retain) * kept)


def moved(method, model, forget, retain, options, context):
    unlearned = method(copy.deepcopy(model), forget, retain, options, context)
    return flat(unlearned.parameters()) - flat(model.parameters())


@pytest.mark.parametrize("num", [5, 20, 1000])
def test_official_equals_the_released_recursion(num, model, forget, retain, context):
    options = IuOfficialOptions(alpha=1.0, num=num, batch=16)
    found = moved(iu_official, model, forget, retain, options, context)
    expected = naive_official(model, forget, retain, num)
    torch.testing.assert_close(found, expected, atol=2e-7, rtol=1e-3)


def test_correct_variant_inverts_the_damped_fisher(forget, retain, context):
    from torch import nn

    torch.manual_seed(0)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    options = IuOptions(alpha=1.0, num=40, batch=16, iterations=200, tolerance=1e-6)
    found = moved(iu, small, forget, retain, options, context)
    torch.testing.assert_close(found, naive_woodfisher(small, forget, retain, 40), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("method", "options"), [(iu_official, IuOfficialOptions), (iu, IuOptions)])
def test_alpha_zero_changes_no_weight(method, options, model, forget, retain, context):
    assert not moved(method, model, forget, retain, options(alpha=0.0, num=10), context).any()


def test_large_num_leaves_k_at_v(model, forget, retain, context):
    """N -> infinity: every correction has a denominator N."""
    options = IuOfficialOptions(alpha=1.0, num=10**9, batch=16)
    found = moved(iu_official, model, forget, retain, options, context)
    torch.testing.assert_close(found, naive_v(model, forget, retain), atol=1e-7, rtol=1e-3)


def test_large_damping_scales_v(model, forget, retain, context):
    options = IuOptions(alpha=1e6, num=20, damping=1e6, batch=16)
    found = moved(iu, model, forget, retain, options, context)
    torch.testing.assert_close(found, naive_v(model, forget, retain), atol=1e-7, rtol=1e-3)


def test_equal_sides_give_no_direction(model, forget, context):
    v = flat(gradient_difference(model.eval(), forget, forget, 16, context))
    assert v.abs().max() < 1e-7


def test_directional_is_a_product_with_every_sample_gradient(model, forget):
    model.eval()
    batch = next(forget.batches(8, shuffle=False))
    direction = [torch.randn(p.shape) for p in model.parameters()]
    expected = [sample_gradient(model, x, y) @ flat(direction) for x, y in zip(batch.images, batch.labels, strict=True)]
    torch.testing.assert_close(
        directional(model, batch, direction).double(), torch.stack(expected), atol=1e-5, rtol=1e-4
    )


def test_gradients_leave_no_trace_on_the_model(model, forget):
    loss_gradient(model, forget.batches(8, shuffle=False), 1.0)
    assert all(p.grad is None for p in model.parameters())


def test_a_mask_keeps_the_other_weights(model, forget, retain, context):
    mask = {name: torch.rand(p.shape) < 0.5 for name, p in model.named_parameters()}
    options = IuOfficialOptions(alpha=5.0, num=20)
    change = moved(iu_official, model, forget, retain, options, context.with_mask(mask))
    free = torch.cat([part.flatten() for part in mask.values()])
    assert not change[~free].any()
    assert change[free].any()


def test_conjugate_gradients_solve_in_as_many_steps_as_dimensions():
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    matrix, right = (
        root @ root.T + torch.eye(6, dtype=torch.float64),
        torch.randn(6, dtype=torch.float64),
    )
    (found,) = conjugate_gradients(lambda v: [matrix @ v[0]], [right.clone()], 12, 1e-14)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right))


def test_pruned_weights_are_no_variables_of_the_released_recursion(model, forget, retain, context):
    """The step of a pruned network is that of a network which never had the pruned weights."""
    mask = omp_mask(model, 0.6)
    apply_mask(model, mask)
    kept = flat([mask.get(name, torch.ones_like(p)).to(p) for name, p in model.named_parameters()])
    pruned = replace(context, mask=mask, pruned=mask)
    found = moved(iu_official, model, forget, retain, IuOfficialOptions(alpha=1.0, num=20, batch=16), pruned)
    assert not found[kept == 0].any()
    torch.testing.assert_close(found, naive_official(model, forget, retain, 20, kept), atol=2e-7, rtol=1e-3)


def test_pruned_weights_are_no_variables_of_the_inverse(forget, retain, context):
    torch.manual_seed(0)
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    mask = {"1.weight": torch.rand(3, 64) < 0.5}
    apply_mask(small, mask)
    kept = flat([mask["1.weight"].float(), torch.ones(3)])
    options = IuOptions(alpha=1.0, num=40, batch=16, iterations=200, tolerance=1e-6)
    found = moved(iu, small, forget, retain, options, replace(context, mask=mask, pruned=mask))
    assert not found[kept == 0].any()
    torch.testing.assert_close(found, naive_woodfisher(small, forget, retain, 40, kept), atol=1e-6, rtol=1e-3)
