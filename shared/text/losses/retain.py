"""The retain side that many losses share, and the checks of what a loss was given."""

from torch import Tensor, nn

from shared.text.batches import TextBatch, UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.options import RetainOptions
from shared.text.losses.tokens import kl_from, mean_nll, token_mean


def starting_model(reference: nn.Module | None) -> nn.Module:
    """The frozen starting model. Raises ValueError if the caller passed None."""
    if reference is None:
        raise ValueError("this loss compares with the starting model: options.needs_reference says so")
    return reference


def refusal_rows(batch: UnlearnBatch) -> TextBatch:
    """The refusal rows. Raises ValueError if the caller passed None."""
    if batch.refusal is None:
        raise ValueError("this loss trains on refusals: options.needs_refusal says so")
    return batch.refusal


def mean_kl(
    model: nn.Module, rows: TextBatch, reference: nn.Module | None, positions: str, context: LossContext
) -> Tensor:
    """Mean over `positions` of the retain rows of KL(p_0 || p_theta)."""
    values = kl_from(starting_model(reference), model, rows, positions)
    return token_mean(values, rows, "retain", positions, context)


def with_retain_term(
    forget_term: Tensor,
    model: nn.Module,
    batch: UnlearnBatch,
    reference: nn.Module | None,
    options: RetainOptions,
    context: LossContext,
) -> Tensor:
    """gamma * forget term + alpha * retain term, the retain term as the options choose it."""
    value = options.gamma * forget_term
    if options.retain_term == "none" or options.alpha == 0:
        return value
    if options.retain_term == "nll":
        return value + options.alpha * mean_nll(model, batch.retain, "retain", context)
    return value + options.alpha * mean_kl(model, batch.retain, reference, options.kl_positions, context)
