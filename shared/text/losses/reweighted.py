"""Gradient ascent that weighs each token by how well the model knows it."""

import torch
from torch import Tensor, nn

from shared.options import NonNegative
from shared.text.batches import UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.options import RetainOptions
from shared.text.losses.retain import with_retain_term
from shared.text.losses.tokens import token_mean, token_nll


class WgaOptions(RetainOptions):
    """beta: power of the token's probability; 0 is gradient ascent."""

    beta: NonNegative = 1.0


class SatImpOptions(RetainOptions):
    """beta1: power of p (saturation); beta2: power of 1 - p (importance); both 0 is gradient ascent."""

    beta1: NonNegative = 5.0
    beta2: NonNegative = 1.0
    gamma: NonNegative = 0.1


def wga(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: WgaOptions, context: LossContext
) -> Tensor:
    """Weighted gradient ascent (Wang et al., 2025, arXiv:2502.19301): -mean_tok p^beta nll, p^beta held constant."""
    nll = token_nll(model, batch.forget)
    weight = torch.exp(-options.beta * nll.detach())
    ascent = -token_mean(weight * nll, batch.forget, "forget", "answer", context)
    return with_retain_term(ascent, model, batch, reference, options, context)


def satimp(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: SatImpOptions, context: LossContext
) -> Tensor:
    """SatImp (Yang et al., 2025, arXiv:2505.11953): -mean_tok p^beta1 (1 - p)^beta2 nll, the weight held constant."""
    nll = token_nll(model, batch.forget)
    known = nll.detach()
    # 1 - exp(-nll) is 0 in float32 for tokens that the model is sure of
    weight = torch.exp(-options.beta1 * known) * (-torch.expm1(-known)) ** options.beta2
    ascent = -token_mean(weight * nll, batch.forget, "forget", "answer", context)
    return with_retain_term(ascent, model, batch, reference, options, context)
