"""The point loss near the true contour only: a row of HQ-SAM's table 2 (arXiv:2306.01567)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.metrics.segmentation.boundary import boundary_distance
from shared.segmentation.losses import PointLoss, sample_points, uncertain_points


def boundary_point_loss(logits: Tensor, labels: Tensor, generator: torch.Generator, num_points: int) -> PointLoss:
    """BCE and Dice at those of HQ-SAM's points that lie in the boundary region; the others are left out.

    logits: (N, h, w); labels: (N, H, W) in 0..1. The paper gives no equation: the region is that of Boundary IoU, on
    both sides of the contour. A mask without a point in it adds nothing.
    """
    points = uncertain_points(logits, generator, num_points, 3.0, 0.75)
    with torch.no_grad():
        truth = sample_points(labels, points)
        inside = (sample_points(boundary_region(labels), points) > 0.5).float()
    found = sample_points(logits, points)
    errors = F.binary_cross_entropy_with_logits(found, truth, reduction="none")
    bce = ((errors * inside).sum(1) / inside.sum(1).clamp(min=1)).mean()
    p, y = found.sigmoid() * inside, truth * inside
    return PointLoss(bce, (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).mean())


def boundary_region(labels: Tensor) -> Tensor:
    """Pixels of masks (N, H, W) > 0.5 within Boundary IoU's distance (chessboard) of the contour: 0 or 1, float32.

    The picture's own edge is no contour.
    """
    distance = boundary_distance(*labels.shape[1:])
    objects = (labels > 0.5).float()[:, None]
    reached, outside = _grown(objects, distance), _grown(1 - objects, distance)
    return (reached * outside)[:, 0]


def _grown(masks: Tensor, distance: int) -> Tensor:
    """Maximum over squares of 2 distance + 1 pixels a side, by rows and then by columns."""
    length = 2 * distance + 1
    rows = F.max_pool2d(masks, (length, 1), stride=1, padding=(distance, 0))
    return F.max_pool2d(rows, (1, length), stride=1, padding=(0, distance))
