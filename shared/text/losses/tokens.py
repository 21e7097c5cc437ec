"""Log-likelihoods of answers, and means over tokens or sequences: the pieces that the losses are made of.

L(S), the mean over all label tokens of a batch, weighs long answers more than short ones; log p(y|x) is
the *sum* over a row's labels, the end-of-sequence label included.

Exact under micro-batches and several processes (`context.py` says how), for every way to cut a batch:
means over samples (`sequence_nll(...).mean()`), and all means made by `token_mean`, at whatever positions.
Without `context.begin_step` a mean over tokens is that of the piece, and only means over samples stay
exact. Every loss here is one or the other, or a weighted sum of both. "all" positions count the padding of
the whole batch, so a batch is padded first and cut then. (The released codes average the token means of
micro-batches: their weights depend on how the batch is cut.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.text.batches import TextBatch
from shared.text.losses.context import LossContext
from shared.text.losses.modules import logits_at
from shared.text.losses.positions import POSITIONS, answer, next_labels


def token_nll(model: nn.Module, rows: TextBatch) -> Tensor:
    """(n,) negative log-likelihoods of the n labels of all rows, row by row."""
    mask = answer(rows)
    return F.cross_entropy(logits_at(model, rows, mask), next_labels(rows)[mask], reduction="none")


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) sums over each row's True positions of mask (B, T); values (n,) in the mask's order."""
    return values.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], values)


def sequence_nll(model: nn.Module, rows: TextBatch) -> Tensor:
    """(B,) -log p(y|x): summed over each row's labels; 0 for a row without any."""
    return sequence_sum(token_nll(model, rows), answer(rows))


def num_labels(rows: TextBatch) -> Tensor:
    """(B,) int64 |y|: labels that a row predicts; at least 1, so that a row without any divides."""
    return answer(rows).sum(1).clamp(min=1)


def token_mean(values: Tensor, rows: TextBatch, name: str, positions: str, context: LossContext) -> Tensor:
    """Mean of values (n,) over the positions of the *whole* batch, of which `rows` may be a piece.

    name: "forget", "retain" or "refusal", the field that `rows` is of; positions: a key of POSITIONS. Of a
    piece with n of N samples this is N/n * sum(values) / (number of positions in the whole batch), so
    that the pieces' values, weighed by n/N and summed, are the mean. 0 where there is no position.
    """
    piece = len(rows.input_ids)
    samples = context.num_samples(piece)
    if samples == piece:  # counting would make a GPU wait
        return values.sum() / max(values.numel(), 1)
    return values.sum() * (samples / piece / max(num_positions(rows, name, positions, context), 1))


def num_positions(rows: TextBatch, name: str, positions: str, context: LossContext) -> int:
    """How many `positions` the whole batch has, of which `rows` may be a piece."""
    if context.whole is None:
        return int(POSITIONS[positions](rows).sum())
    return context.num_tokens(name, positions)


def mean_nll(model: nn.Module, rows: TextBatch, name: str, context: LossContext) -> Tensor:
    """L(S): mean cross-entropy over all label tokens of the batch."""
    return token_mean(token_nll(model, rows), rows, name, "answer", context)


def kl_from(reference: nn.Module, model: nn.Module, rows: TextBatch, positions: str) -> Tensor:
    """(n,) KL(p_0 || p_theta) of the next tokens, in nats, at `positions`; p_0 of the frozen `reference`."""
    mask = POSITIONS[positions](rows)
    with torch.no_grad():
        log_p0 = logits_at(reference, rows, mask).log_softmax(-1)
    log_p = logits_at(model, rows, mask).log_softmax(-1)
    return F.kl_div(log_p, log_p0, reduction="none", log_target=True).sum(-1)
