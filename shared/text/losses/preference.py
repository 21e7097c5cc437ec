"""Losses that prefer something to the forget answers: refusals (PO, IdkDPO), or anything else (NPO, SimNPO)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.options import NonNegative, Positive
from shared.text.batches import TextBatch, UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.options import LossOptions, RetainOptions
from shared.text.losses.retain import refusal_rows, starting_model, with_retain_term
from shared.text.losses.tokens import mean_nll, num_labels, num_positions, sequence_nll


class PoOptions(LossOptions):
    """mean: "sum" of the refusals' and the retain answers' token means (paper); "concatenated": one token mean
    over the rows of both, which is the released code and made the published numbers. Refusals are the
    shorter answers, so there the retain rows weigh more.
    """

    mean: Literal["sum", "concatenated"] = "sum"

    @property
    def needs_refusal(self) -> bool:
        """Refusals are what it trains on."""
        return True


class IdkDpoOptions(RetainOptions):
    """beta: inverse temperature of the preference."""

    beta: Positive = 0.1

    @property
    def needs_reference(self) -> bool:
        """Both log-ratios are against the starting model."""
        return True

    @property
    def needs_refusal(self) -> bool:
        """Refusals are the preferred answers."""
        return True


class NpoOptions(RetainOptions):
    """beta: inverse temperature; towards 0 the gradient becomes that of gradient ascent.

    retain_term: "none" is NPO itself, "nll" and "kl" are its two regularised forms.
    """

    beta: Positive = 0.1

    @property
    def needs_reference(self) -> bool:
        """The log-ratio is against the starting model."""
        return True


class SimNpoOptions(RetainOptions):
    """beta: inverse temperature; delta: margin, in nats per token; gamma: weight of the forget term."""

    beta: Positive = 4.5
    delta: float = 0.0
    gamma: NonNegative = 0.125


def po(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: PoOptions, context: LossContext
) -> Tensor:
    """Preference optimisation of TOFU (arXiv:2401.06121): L(S_idk) + L(S_R), S_idk the refused forget questions."""
    refusals = mean_nll(model, refusal_rows(batch), "refusal", context)
    retained = mean_nll(model, batch.retain, "retain", context)
    if options.mean == "sum":
        return refusals + retained
    num_refusal = num_positions(refusal_rows(batch), "refusal", "answer", context)
    num_retain = num_positions(batch.retain, "retain", "answer", context)
    return (num_refusal * refusals + num_retain * retained) / max(num_refusal + num_retain, 1)


def idk_dpo(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: IdkDpoOptions, context: LossContext
) -> Tensor:
    """DPO with the refusal as the preferred answer (Rafailov et al., 2023, arXiv:2305.18290), in NPO's scaling:

    -(2/beta) mean log sigmoid(beta ([log p(y_idk) - log p_0(y_idk)] - [log p(y_f) - log p_0(y_f)])).
    """
    refused = log_ratio(model, reference, refusal_rows(batch))
    answered = log_ratio(model, reference, batch.forget)
    preference = -2 / options.beta * F.logsigmoid(options.beta * (refused - answered)).mean()
    return with_retain_term(preference, model, batch, reference, options, context)


def npo(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: NpoOptions, context: LossContext
) -> Tensor:
    """Negative preference optimisation (Zhang et al., 2024, arXiv:2404.05868):

    -(2/beta) mean log sigmoid(-beta [log p(y_f) - log p_0(y_f)]), log-probabilities summed over the answer.
    """
    answered = log_ratio(model, reference, batch.forget)
    negative = -2 / options.beta * F.logsigmoid(-options.beta * answered).mean()
    return with_retain_term(negative, model, batch, reference, options, context)


def simnpo(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: SimNpoOptions, context: LossContext
) -> Tensor:
    """SimNPO (Fan et al., 2024, arXiv:2410.07163), NPO without a reference and per token:

    -(2/beta) mean log sigmoid(beta [nll(y_f) / |y_f| - delta]).
    """
    per_token = sequence_nll(model, batch.forget) / num_labels(batch.forget)
    negative = -2 / options.beta * F.logsigmoid(options.beta * (per_token - options.delta)).mean()
    return with_retain_term(negative, model, batch, reference, options, context)


def log_ratio(model: nn.Module, reference: nn.Module | None, rows: TextBatch) -> Tensor:
    """(B,) log p_theta(y|x) - log p_0(y|x) of the rows' answers."""
    with torch.no_grad():
        frozen = sequence_nll(starting_model(reference), rows)
    return frozen - sequence_nll(model, rows)
