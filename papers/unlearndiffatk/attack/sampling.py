"""Straight-through sampling of tokens: a discrete draw forward, a clipped gradient backward."""

from typing import Any

import torch
from torch import Tensor


def draw_index(rows: Tensor, uniform: Tensor) -> Tensor:
    """(B, N) int64: entry drawn from each row (B, N, V) by inversion, with the numbers `uniform` (N,) in [0, 1).

    Rows need not sum to 1, but must be non-negative with a positive sum. The same numbers serve all B prompts: the seed
    is reset for every prompt, so each sees the stream that it would see alone.
    """
    cumulative = rows.double().cumsum(-1)
    wanted = uniform.to(cumulative).expand(rows.shape[:-1])[..., None] * cumulative[..., -1:]
    index = torch.searchsorted(cumulative, wanted, right=True)[..., 0]
    return index.clamp(max=rows.shape[-1] - 1)


class _StraightThrough(torch.autograd.Function):
    """Embedding of drawn tokens; its gradient goes to the rows as if they were one-hot, clipped to [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        ctx.dtype = rows.dtype
        # one-hot @ table is this row, to the bit
        return table[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (table,) = ctx.saved_tensors
        gradient = gradients[0].to(table.dtype) @ table.T
        return gradient.clamp(-1, 1).to(ctx.dtype), None, None


def sampled_embeddings(rows: Tensor, uniform: Tensor, table: Tensor) -> Tensor:
    """(B, N, d): embeddings of tokens drawn from rows (B, N, V); table (V, d): embeddings of the rows' entries."""
    with torch.no_grad():
        index = draw_index(rows, uniform)
    embeddings: Tensor = _StraightThrough.apply(rows, index, table)
    return embeddings
