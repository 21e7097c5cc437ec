"""Losses of mask logits: BCE and Dice on uncertain points (HQ-SAM); focal, pooled Dice and IoU (PromptNucSeg).

Logits and labels are (N, H, W) floats, one mask each; labels are in 0..1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.errors import UserError

NUM_POINTS = 112 * 112  # of the full-size recipe


class PointLoss(NamedTuple):
    """Two scalars; HQ-SAM trains on their sum."""

    bce: Tensor
    dice: Tensor


def point_loss(
    logits: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    num_points: int = NUM_POINTS,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> PointLoss:
    """BCE and Dice at points that are mostly uncertain (PointRend, arXiv:1912.08193; HQ-SAM, arXiv:2306.01567).

    logits: (N, h, w); labels: (N, H, W) in 0..1, of any size: soft values are taken as they are. N must be > 0.
    """
    if not len(logits):
        raise UserError("point loss: no masks in the batch")
    points = uncertain_points(logits, generator, num_points, oversample, importance)
    with torch.no_grad():
        truth = sample_points(labels, points)
    found = sample_points(logits, points)
    return PointLoss(point_bce(found, truth), point_dice(found, truth))


@torch.no_grad()
def uncertain_points(
    logits: Tensor, generator: torch.Generator, num_points: int, oversample: float, importance: float
) -> Tensor:
    """(N, num_points, 2) points (x, y) in 0..1: of `oversample * num_points` uniform ones the `importance * num_points`
    with the smallest |logit|, and uniform ones for the rest.
    """
    num_masks = len(logits)
    num_uncertain = int(importance * num_points)
    candidates = _uniform((num_masks, int(oversample * num_points), 2), generator, logits)
    order = sample_points(logits, candidates).abs().topk(num_uncertain, dim=1, largest=False).indices
    uncertain = candidates.gather(1, order[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, _uniform((num_masks, num_points - num_uncertain, 2), generator, logits)], 1)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32).to(like.device)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (N, P) of maps (N, h, w) at points (N, P, 2) in 0..1; 0..1 spans the pixels' outer edges.

    Beyond the outer pixel centres the map fades towards 0, as in PointRend's code.
    """
    grid = (2 * points - 1)[:, None].to(maps.dtype)
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, 0]


def point_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy (N, P): mean over points, mean over masks."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def point_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - (2 sum p y + 1) / (sum p + sum y + 1) of each row (N, P), mean over masks."""
    p = logits.sigmoid()
    return (1 - (2 * (p * labels).sum(1) + 1) / (p.sum(1) + labels.sum(1) + 1)).mean()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Binary focal loss (Lin et al., arXiv:1708.02002) without class weight, mean over all pixels."""
    p = logits.sigmoid()
    missed = p + labels - 2 * p * labels  # 1 - p_t
    return (missed**gamma * F.binary_cross_entropy_with_logits(logits, labels, reduction="none")).mean()


def pooled_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - 2 sum p y / (sum p + sum y), sums over all pixels of all masks; 0 if every mask is empty."""
    p = logits.sigmoid()
    if not labels.any():
        return p.sum() * 0.0
    return 1 - 2 * (p * labels).sum() / (p.sum() + labels.sum())


def soft_iou(logits: Tensor, labels: Tensor) -> Tensor:
    """sum p y / (sum p + sum y - sum p y) of each mask: (N,). No mask may be empty."""
    p, y = logits.sigmoid().flatten(1), labels.flatten(1)
    common = (p * y).sum(1)
    return common / (p.sum(1) + y.sum(1) - common)


def iou_loss(predicted: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of predicted IoU (N,) against the soft IoU, through which the gradient flows, too."""
    return F.mse_loss(predicted, soft_iou(logits, labels))
