"""The mask loss with a weight for each mask: binary cross-entropy and Dice on points, as HQ-SAM has them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.segmentation.losses import sample_points, uncertain_points


def weighted_point_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, generator: torch.Generator, num_points: int
) -> Tensor:
    """Weighted mean over masks of BCE + Dice at points that are mostly uncertain (three times as many are drawn, three
    quarters of the points are the most uncertain of them).

    logits: (N, h, w); labels: (N, H, W) in 0..1; weights: (N,), not all 0. With equal weights this is the sum of
    `shared.segmentation.losses.point_loss`.
    """
    points = uncertain_points(logits, generator, num_points, 3.0, 0.75)
    with torch.no_grad():
        truth = sample_points(labels, points)
    found = sample_points(logits, points)
    bce = F.binary_cross_entropy_with_logits(found, truth, reduction="none").mean(1)
    p = found.sigmoid()
    dice = 1 - (2 * (p * truth).sum(1) + 1) / (p.sum(1) + truth.sum(1) + 1)
    return ((bce + dice) * weights).sum() / weights.sum()


def presence_loss(iou: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of the IoU output (N,), read as a logit, with whether the class is in the image (N,) bool."""
    return F.binary_cross_entropy_with_logits(iou, present.float())
