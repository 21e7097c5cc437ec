"""Euclidean projection of rows onto the probability simplex {0 <= u <= 1, sum u = 1}."""

import math

import torch
from torch import Tensor


def project_exact(rows: Tensor) -> Tensor:
    """(..., V) -> (..., V): max(a - mu, 0) with mu from the sorted entries (Duchi et al., ICML 2008)."""
    values = rows.sort(dim=-1, descending=True).values
    sums = values.cumsum(-1) - 1
    counts = torch.arange(1, rows.shape[-1] + 1, device=rows.device)
    support = (values * counts > sums).sum(-1, keepdim=True)
    mu = sums.gather(-1, support - 1) / support
    return (rows - mu).clamp(min=0)


def project_bisection(rows: Tensor, tolerance: float = 1e-5) -> Tensor:
    """clip(a - mu, 0, 1), mu by bisection of [min a - 1, max a] until the bracket is no wider than `tolerance`; a row
    on the simplex already stays as it is.

    The tolerance is on mu: over V entries the sum may be off by V * tolerance, by half of that on average.
    """
    low, high = rows.amin(-1, keepdim=True) - 1, rows.amax(-1, keepdim=True)
    middle = (low + high) / 2
    for _ in range(math.ceil(math.log2(float((high - low).max()) / tolerance)) + 1):
        wide = high - low > tolerance
        middle = torch.where(wide, (low + high) / 2, middle)
        above = (rows - middle).clamp(0, 1).sum(-1, keepdim=True) > 1
        low, high = torch.where(wide & above, middle, low), torch.where(wide & ~above, middle, high)
    inside = rows.clamp(0, 1)
    there = (inside.sum(-1, keepdim=True) - 1).abs() <= tolerance
    return torch.where(there, inside, (rows - middle).clamp(0, 1))


PROJECTIONS = {"exact": project_exact, "bisection": project_bisection}
