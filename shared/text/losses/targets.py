"""Losses that train towards a changed next-token distribution: UNDIAL (the teacher's), CE-U (the model's own)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.errors import ConfigError
from shared.options import NonNegative
from shared.text.batches import UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.modules import logits_at
from shared.text.losses.options import LossOptions, RetainOptions
from shared.text.losses.positions import IGNORED, POSITIONS, next_labels
from shared.text.losses.retain import starting_model, with_retain_term
from shared.text.losses.tokens import token_mean


class UndialOptions(RetainOptions):
    """beta: how much the teacher's logit of the true token is lowered.

    positions: "answer": where a label is predicted. "predicting" is the released code: all positions but the last
    count, question and padding included, and where there is no label its mark -100 indexes
    from the end, so that the penalty falls on token V-100.
    """

    beta: NonNegative = 10.0
    alpha: NonNegative = 0.0
    positions: Literal["answer", "predicting"] = "answer"

    @property
    def needs_reference(self) -> bool:
        """The teacher is the starting model."""
        return True


class CeuOptions(LossOptions):
    """skip_first: leave out each answer's first token, which the question does not yet determine (the paper's
    footnote, and its code's default)."""

    skip_first: bool = True


def undial(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: UndialOptions, context: LossContext
) -> Tensor:
    """UNDIAL (Dong et al., 2024, arXiv:2402.10052): mean cross-entropy towards softmax(z_0 - beta onehot(y)),
    z_0 the starting model's logits."""
    mask = POSITIONS[options.positions](batch.forget)
    labels = next_labels(batch.forget)[mask]
    with torch.no_grad():
        teacher = logits_at(starting_model(reference), batch.forget, mask)
        lowered = _indices(labels, teacher.shape[1])[:, None]
        soft = teacher.scatter(1, lowered, teacher.gather(1, lowered) - options.beta).softmax(-1)
    values = F.cross_entropy(logits_at(model, batch.forget, mask), soft, reduction="none")
    distilled = token_mean(values, batch.forget, "forget", options.positions, context)
    return with_retain_term(distilled, model, batch, reference, options, context)


def ceu(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: CeuOptions, context: LossContext
) -> Tensor:
    """CE-U (arXiv:2503.01224): mean cross-entropy towards the model's own distribution without the
    true token, softmax(z with z_y = -inf), which is held constant."""
    positions = "after_first" if options.skip_first else "answer"
    mask = POSITIONS[positions](batch.forget)
    logits = logits_at(model, batch.forget, mask)
    labels = next_labels(batch.forget)[mask][:, None]
    soft = logits.detach().scatter(1, labels, float("-inf")).softmax(-1)
    values = F.cross_entropy(logits, soft, reduction="none")
    return token_mean(values, batch.forget, "forget", positions, context)


def _indices(labels: Tensor, num_vocabulary: int) -> Tensor:
    """Labels as indices, -100 counted from the end. Raises ConfigError if the vocabulary has no such token."""
    if num_vocabulary < -IGNORED and bool((labels == IGNORED).any()):
        raise ConfigError(
            f"undial: positions 'predicting' lowers token V-100, and the vocabulary has {num_vocabulary}; use 'answer'"
        )
    return torch.where(labels == IGNORED, num_vocabulary + IGNORED, labels)
