"""The largest of many scores, chosen the same way on every device."""

import torch
from torch import Tensor


def largest(scores: Tensor, num: int) -> Tensor:
    """True (n,) for the `num` largest of `scores` (n,); among equals the first ones.

    Same answer as `argsort(argsort(-scores, stable)) < num`, but selects instead of sorting.
    """
    if num == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(scores.numel() - num + 1).values
    chosen = scores > threshold
    ties = (scores == threshold).nonzero()[:, 0]
    chosen[ties[: num - int(chosen.sum())]] = True
    return chosen
