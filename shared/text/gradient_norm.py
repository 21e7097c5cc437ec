"""Gradient norm of an answer's loss, a membership score (as in OpenUnlearning, arXiv:2506.12618)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from shared.gpu.precision import precision_for
from shared.metrics.text.probability import Floats
from shared.text.encode import IGNORED, EncodedRow
from shared.text.losses.modules import unwrapped
from shared.text.output_layer import chosen_logits


def gradient_norms(model: nn.Module, rows: Sequence[EncodedRow]) -> Floats:
    """(N,) mean over all parameter tensors of the L2 norm of the gradient of a row's mean loss; NaN without target.

    Frozen parameters count too, or a frozen reference model could not be compared. One backward pass a row, in eval
    mode; gradients that the parameters hold are left alone.
    """
    model = unwrapped(model)
    weights = list(model.parameters())
    trains, frozen = model.training, [weight for weight in weights if not weight.requires_grad]
    model.eval().requires_grad_(True)
    try:
        return np.array([_norm(model, weights, row) if row.has_target else np.nan for row in rows], np.float64)
    finally:
        model.train(trains)
        for weight in frozen:
            weight.requires_grad_(False)


def _norm(model: nn.Module, weights: Sequence[nn.Parameter], row: EncodedRow) -> float:
    device = weights[0].device
    ids, mask, labels = (torch.tensor([v], device=device) for v in (row.input_ids, row.attention_mask, row.labels))
    predicting = (labels[0, 1:] != IGNORED).nonzero()[:, 0]
    with torch.enable_grad(), precision_for(device).context():
        logits, _ = chosen_logits(
            model, predicting, partial(model, input_ids=ids, attention_mask=mask, use_cache=False)
        )
        loss = F.cross_entropy(logits, labels[0, predicting + 1])
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return float(torch.stack([g.float().norm() for g in gradients if g is not None]).mean())
