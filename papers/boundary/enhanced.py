"""Enhanced Boundary Shrink: weights by the depth of the crossing, and a regulariser of the loss surface's curvature."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.normalize import Normalize
from shared.training.device_images import Batch


def crossing_weight(logits: Tensor, bias: float, slope: float) -> Tensor:
    """Weight (B,) = 3 sigmoid(slope (p_2nd - p_1st + bias)), p of `logits` (B, C) at x': most for those just across."""
    first, second = logits.float().softmax(1).topk(2, dim=1).values.T
    return 3 * torch.sigmoid(slope * (second - first + bias))


def curvature(model: nn.Module, batch: Batch, step: float) -> Tensor:
    """kappa (B,) = |gradient of l at u + z - gradient of l at u|_2, one for each image.

    u: the normalised images; l: the batch's *mean* CE with true labels, so each entry carries 1/B; z = step s / |s|, s
    the sign of the gradient at u, a constant. Differentiable in weights that learn (double backward); in train mode its
    passes move batch norm's statistics.
    """
    learns = any(p.requires_grad for p in model.parameters())
    std = normalisation(model)[1]

    def gradient(images: Tensor) -> Tensor:
        inputs = images.detach().requires_grad_(True)
        loss = F.cross_entropy(model(inputs), batch.labels)
        # by the chain rule: x = mean + std u
        return torch.autograd.grad(loss, inputs, create_graph=learns)[0] * std

    with torch.enable_grad(), torch.autocast(batch.images.device.type, enabled=False):
        here = gradient(batch.images)
        sign = here.detach().sign()
        length = torch.linalg.vector_norm(sign, dim=(1, 2, 3), keepdim=True)
        ahead = gradient(batch.images + std * step * (sign + 1e-7) / (length + 1e-7))
        return torch.linalg.vector_norm((ahead - here).flatten(1), dim=1)


def normalisation(model: nn.Module) -> tuple[Tensor | float, Tensor | float]:
    """Mean and std that the model normalises its input with: 0 and 1 if it does not."""
    inside: Any = getattr(model, "normalize", None)
    return (inside.mean, inside.std) if isinstance(inside, Normalize) else (0.0, 1.0)
