"""Enhanced shrink: the weight of a crossing, the curvature, and their limits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from papers.boundary.enhanced import crossing_weight, curvature, normalisation
from papers.boundary.method import ShrinkOptions, crossing, shrink
from shared.classification.distillation import frozen_copy
from shared.models.build import build
from shared.training.device_images import Batch

SETTING = {"lr": 0.01, "epochs": 2, "batch": 16, "epsilon": 0.3, "clip": "data", "grid": False}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_weight_lies_between_its_published_ends_and_falls_with_depth():
    """p_2nd - p_1st in [-1, 0]: 3 sigmoid(-7.5) .. 3 sigmoid(-2.5)."""
    gaps = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0, 50.0])
    logits = torch.stack([gaps, torch.zeros(6), torch.full((6,), -100.0)], dim=1)
    found = crossing_weight(logits, -0.5, 5.0)
    assert (found.diff() < 0).all()
    torch.testing.assert_close(found[0], 3 * torch.sigmoid(torch.tensor(-2.5)))
    torch.testing.assert_close(found[-1], 3 * torch.sigmoid(torch.tensor(-7.5)))
    assert 0.001 < found[-1] < found[0] < 0.229
    p = logits[2].softmax(0)
    torch.testing.assert_close(found[2], 3 / (1 + torch.exp(-5 * (p[1] - p[0] - 0.5))))


class Quadratic(nn.Module):
    """Logits (0, a x'x): with label 0 the loss is softplus(a x'x), whose input gradient is known."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        value = self.scale * images.flatten(1).square().sum(1)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def test_curvature_of_a_known_loss():
    torch.manual_seed(0)
    images = torch.rand(5, 1, 2, 3, dtype=torch.float64) - 0.5
    model = Quadratic(0.7).double()
    batch = Batch(images, torch.zeros(5, dtype=torch.int64), torch.arange(5))

    def gradient(x):  # of the batch's mean loss: 1/B softplus'(a x'x) 2 a x
        value = 0.7 * x.flatten(1).square().sum(1)
        return (2 * 0.7 / 5) * torch.sigmoid(value).view(-1, 1, 1, 1) * x

    z = 0.9 * (images.sign() + 1e-7) / (6**0.5 + 1e-7)
    expected = (gradient(images + z) - gradient(images)).flatten(1).norm(dim=1)
    torch.testing.assert_close(curvature(model, batch, 0.9), expected)


def test_a_linear_loss_has_no_curvature():
    """The gradient of -(x'w)_y with fixed softmax is constant; here logits far apart make it so."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 60.0]))  # p = (0, 1): CE is linear in the logits
    batch = Batch(torch.rand(4, 1, 2, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    torch.testing.assert_close(curvature(model, batch, 0.9), torch.zeros(4), atol=1e-6, rtol=0)


def test_curvature_is_measured_on_normalised_images(forget):
    """The same network with the normalisation before it instead of inside."""
    inside = build("tiny_cnn", 3, 1, mean=[0.4], std=[0.25], seed=2).eval()
    outside = build("tiny_cnn", 3, 1, seed=2).eval()
    outside.load_state_dict(inside.state_dict())
    assert normalisation(outside) == (0.0, 1.0)
    batch = next(forget.batches(8, shuffle=False))
    normalised = batch._replace(images=(batch.images - 0.4) / 0.25)
    torch.testing.assert_close(curvature(inside, batch, 0.9), curvature(outside, normalised, 0.9), rtol=1e-4, atol=1e-7)


def test_curvature_reaches_the_learning_weights_and_not_the_frozen_ones(model, forget):
    batch = next(forget.batches(8, shuffle=False))
    model.eval()
    (curvature(model, batch, 0.9).sum()).backward()
    assert model.body[0].weight.grad.abs().sum() > 0
    assert not curvature(frozen_copy(model), batch, 0.9).requires_grad


def test_double_backward_is_the_derivative(model, forget):
    """A directional derivative by central differences, in float64."""
    model = model.double().eval()
    batch = next(forget.batches(6, shuffle=False))
    batch = batch._replace(images=batch.images.double())
    gradients = torch.autograd.grad(curvature(model, batch, 0.9).sum(), list(model.fc.parameters()))
    direction = [
        torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for p in gradients
    ]
    values = []
    for step in (1e-6, -1e-6):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(moved.fc.parameters(), direction, strict=True):
                p.add_(step * d)
        values.append(curvature(moved, batch, 0.9).sum().item())
    expected = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("strength", "reweight"), [(0.0, True), (0.7, False), (0.7, True)])
def test_one_enhanced_step_is_the_formula(strength, reweight, model, forget, retain, new_context):
    """mean(weight CE) + lambda |kappa_o - kappa_u|_2, kappa_o of the original in eval mode, kappa_u in train mode."""
    options = ShrinkOptions(**{**SETTING, "batch": 30, "epochs": 1}, reweight=reweight, curvature=strength)
    trained = shrink(copy.deepcopy(model), forget, retain, options, new_context())
    original, reference = frozen_copy(model), copy.deepcopy(model).train()
    batch = next(forget.batches(30, new_context().generator("unlearn")))
    beyond = crossing(original, forget, options)(batch)
    losses = F.cross_entropy(reference(batch.images), beyond.argmax(1), reduction="none")
    loss = (crossing_weight(beyond, -0.5, 5.0) * losses).mean() if reweight else losses.mean()
    loss = loss + strength * (curvature(original, batch, 0.9) - curvature(reference, batch, 0.9)).norm()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(reference.parameters()))])
    torch.testing.assert_close(weights(trained), weights(reference) - 0.01 * gradient, atol=1e-7, rtol=1e-5)
