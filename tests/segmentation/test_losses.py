"""Losses: values known by hand, gradients, and where the points of PointRend fall."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from shared.errors import UserError
from shared.segmentation.losses import (
    focal_loss,
    iou_loss,
    point_bce,
    point_dice,
    point_loss,
    pooled_dice_loss,
    sample_points,
    soft_iou,
    uncertain_points,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def discs():
    """(logits, labels) of three discs, 32x32 and 128x128."""
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    distance = torch.stack([r - ((rows - 60) ** 2 + (columns - 70) ** 2).sqrt() for r in (20.0, 30.0, 45.0)])
    return F.avg_pool2d(distance, 4), (distance > 0).float()


def test_three_quarters_of_the_points_are_the_most_uncertain_of_three_times_as_many(discs):
    logits, _ = discs
    points = uncertain_points(logits, generator(), 400, 3.0, 0.75)
    assert points.shape == (3, 400, 2)
    candidates = torch.rand((3, 1200, 2), generator=generator())
    expected = sample_points(logits, candidates).abs().sort(1).values[:, :300]
    found = sample_points(logits, points).abs()
    torch.testing.assert_close(found[:, :300].sort(1).values, expected)
    # The others are uniform: about as far from the contour as any point.
    assert found[:, 300:].mean() > 3 * found[:, :300].mean()
    assert ((points >= 0) & (points <= 1)).all()


def test_the_default_counts_are_those_of_the_recipe(discs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "shared.segmentation.losses._uniform",
        lambda shape, g, like: seen.append(shape) or torch.rand(shape, generator=g),
    )
    point_loss(*discs, generator())
    assert seen == [(3, 37632, 2), (3, 3136, 2)]


def test_points_are_sampled_at_pixel_centres():
    maps = torch.arange(12.0).reshape(1, 3, 4)
    centres = torch.tensor([[[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3], [1.0 / 4, 0.5 / 3]]])
    torch.testing.assert_close(sample_points(maps, centres), torch.tensor([[0.0, 11.0, 0.5]]))


def test_bce_at_zero_logits_is_log_two_and_dice_of_perfect_logits_zero():
    labels = (torch.rand((4, 300), generator=generator()) > 0.5).float()
    assert point_bce(torch.zeros(4, 300), labels).item() == pytest.approx(math.log(2))
    perfect = 200 * (labels - 0.5)
    assert point_dice(perfect, labels).item() == pytest.approx(0, abs=1e-6)
    assert point_dice(-perfect, labels).item() == pytest.approx(1 - (1 / (300 + 1)), abs=2e-3)


def test_point_dice_is_a_mean_over_masks():
    p = torch.rand((3, 50), generator=generator())
    y = (torch.rand((3, 50), generator=generator(1)) > 0.5).float()
    by_hand = [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, y, strict=True)]
    torch.testing.assert_close(point_dice(p.logit(), y), torch.stack(by_hand).mean())


def test_uniform_points_estimate_the_dense_loss(discs):
    """importance 0: an unbiased estimate; importance 0.75 looks at the hard places, and is larger."""
    logits, labels = discs
    full = F.interpolate(logits[:, None], (128, 128), mode="bilinear")[:, 0]
    dense = F.binary_cross_entropy_with_logits(full, labels).item()
    uniform = point_loss(logits, labels, generator(), 20_000, 1.0, 0.0).bce.item()
    assert uniform == pytest.approx(dense, rel=0.1)
    assert point_loss(logits, labels, generator(), 20_000).bce.item() > 2 * dense


def test_the_gradient_reaches_the_logits_and_the_seed_decides(discs):
    logits, labels = discs
    logits = logits.clone().requires_grad_()
    losses = [point_loss(logits, labels, generator(s), 500) for s in (3, 3, 4)]
    assert losses[0].bce == losses[1].bce
    assert losses[0].bce != losses[2].bce
    (losses[0].bce + losses[0].dice).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).flatten(1).any(1).all()
    with pytest.raises(UserError, match="no masks in the batch"):
        point_loss(logits[:0], labels[:0], generator())


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_is_torchvision_s(gamma):
    logits = torch.randn((3, 9, 9), generator=generator()) * 4
    labels = (torch.rand((3, 9, 9), generator=generator(1)) > 0.5).float()
    expected = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal_loss(logits, labels, gamma), expected)


def test_dice_is_pooled_over_all_masks():
    p = torch.rand((2, 5, 5), generator=generator())
    y = torch.zeros(2, 5, 5)
    y[0, :3] = 1
    expected = 1 - 2 * (p * y).sum() / (p.sum() + y.sum())
    torch.testing.assert_close(pooled_dice_loss(p.logit(), y), expected)
    torch.testing.assert_close(
        pooled_dice_loss(p.logit().reshape(1, 2, 25), y.reshape(1, 2, 25)), expected, atol=1e-6, rtol=0
    )
    assert pooled_dice_loss(p.logit(), torch.zeros_like(y)) == 0
    assert pooled_dice_loss(200 * (y - 0.5), y).item() == pytest.approx(0, abs=1e-6)


def test_soft_iou_of_sharp_masks_is_iou_and_its_gradient_flows():
    labels = torch.zeros(2, 6, 6)
    labels[0, :4], labels[1, :, 2:] = 1, 1
    sharp = torch.full((2, 6, 6), -100.0)
    sharp[:, 2:] = 100
    expected = torch.tensor([12 / 36, 16 / 32])
    torch.testing.assert_close(soft_iou(sharp, labels), expected)
    assert iou_loss(expected, sharp, labels).item() == pytest.approx(0, abs=1e-10)
    logits = torch.zeros((2, 6, 6), requires_grad=True)
    predicted = torch.tensor([0.9, 0.1], requires_grad=True)
    iou_loss(predicted, logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).all()
    assert predicted.grad is not None
