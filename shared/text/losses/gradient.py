"""Gradient ascent and its two regularised forms: baselines of TOFU (Maini et al., 2024, arXiv:2401.06121)."""

from torch import Tensor, nn

from shared.text.batches import UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.options import LossOptions, Positions, RetainOptions, WeightedOptions
from shared.text.losses.retain import mean_kl, with_retain_term
from shared.text.losses.tokens import mean_nll


class GaOptions(LossOptions):
    """Gradient ascent has no hyper-parameter of its own."""


class GdOptions(RetainOptions):
    """Gradient difference; options of RetainOptions."""


class KlOptions(WeightedOptions):
    """kl_positions: where the divergence is averaged.

    "attended": over the retain rows' own positions, question and answer (paper); "answer": where a label is
    predicted. "all" is the released code: it sums over every position of the padded tensor and divides by
    their number, so a row of 40 tokens padded to 500 counts 8 %, whatever the model says at padding
    included. It made the published numbers.
    """

    kl_positions: Positions = "attended"

    @property
    def needs_reference(self) -> bool:
        """KL is taken from the starting model."""
        return self.alpha > 0


def ga(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: GaOptions, context: LossContext
) -> Tensor:
    """Gradient ascent: -L(S_F)."""
    return -mean_nll(model, batch.forget, "forget", context)


def gd(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: GdOptions, context: LossContext
) -> Tensor:
    """Gradient difference (Liu et al., 2022, arXiv:2203.12817): -gamma L(S_F) + alpha L(S_R)."""
    ascent = -mean_nll(model, batch.forget, "forget", context)
    return with_retain_term(ascent, model, batch, reference, options, context)


def kl(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: KlOptions, context: LossContext
) -> Tensor:
    """KL minimisation: -gamma L(S_F) + alpha mean KL(p_0 || p_theta) on the retain rows."""
    value = -options.gamma * mean_nll(model, batch.forget, "forget", context)
    if options.alpha == 0:
        return value
    return value + options.alpha * mean_kl(model, batch.retain, reference, options.kl_positions, context)
