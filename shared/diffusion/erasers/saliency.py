"""Weight saliency (SalUn, arXiv:2310.12508) for diffusion models: which weights the forget loss pulls at most.

m = 1 for the int(q n) weights with the largest score, ranked over all layers.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from shared.training.ranking import largest

Mask = dict[str, Tensor]


def gradient_scores(
    parameters: Mapping[str, nn.Parameter],
    losses: Iterable[Tensor],
    *,
    clip: float | None = None,
    accumulate: Literal["signed", "absolute"] = "signed",
) -> Mask:
    """|sum over batches of the loss's gradient| for each weight; "absolute": the sum of |gradient|.

    losses: a scalar with graph a batch, made when it is asked for. clip: each batch's gradient is first scaled to at
    most this norm, over all `parameters`.
    """
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
        scale = 1.0
        if clip is not None:
            # the rule of torch's clip_grad_norm_
            norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
            scale = (clip / (norm + 1e-6)).clamp(max=1.0)
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total += scale * (gradient if accumulate == "signed" else gradient.abs())
    return {name: total.abs() for name, total in totals.items()}


def top_mask(scores: Mapping[str, Tensor], keep: float) -> Mask:
    """True for exactly int(keep * n) of all n weights."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = largest(flat, int(keep * len(flat)))
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
