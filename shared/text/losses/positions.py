"""Sets of positions as masks (B, T) over a causal model's outputs: True at t takes the prediction made at t.

The label at t+1 is predicted at t, so the last column never predicts one.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.text.batches import TextBatch

IGNORED = -100


def next_labels(rows: TextBatch) -> Tensor:
    """(B, T) int64: the label that position t predicts, -100 where there is none."""
    return F.pad(rows.labels[:, 1:], (0, 1), value=IGNORED)


def answer(rows: TextBatch) -> Tensor:
    """(B, T) bool: positions that predict a label."""
    return next_labels(rows) != IGNORED


def after_first(rows: TextBatch) -> Tensor:
    """(B, T) bool: positions that predict a label, without each row's first."""
    predicts = answer(rows)
    return predicts & (predicts.cumsum(1) > 1)


def attended(rows: TextBatch) -> Tensor:
    """(B, T) bool: the row's own tokens, question and answer; no padding."""
    return rows.attention_mask.bool()


def everywhere(rows: TextBatch) -> Tensor:
    """(B, T) bool: every position, padding included."""
    return torch.ones_like(rows.input_ids, dtype=torch.bool)


def predicting(rows: TextBatch) -> Tensor:
    """(B, T) bool: every position that a next one follows, padding included: all columns but the last."""
    mask = everywhere(rows)
    mask[:, -1] = False
    return mask


POSITIONS: dict[str, Callable[[TextBatch], Tensor]] = {
    "answer": answer,
    "after_first": after_first,
    "attended": attended,
    "all": everywhere,
    "predicting": predicting,
}
