"""Closed-form edits of linear maps: the regression that UCE and MACE solve."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.modules import cross_attentions


class Regression:
    """min_W sum_i s_i |W k_i - v_i|^2 + lam |W - W0|_F^2, for many W that read the same k_i.

    The minimum is W = (lam W0 + sum s v k^T) (lam I + sum s k k^T)^-1. The second factor is expensive to invert, and
    the same for all W. Sums are kept in float64.
    """

    def __init__(self, size: int, lam: float, device: torch.device | str = "cpu") -> None:
        self._lam = lam
        self._gram = lam * torch.eye(size, dtype=torch.float64, device=device)
        self._factor: Tensor | None = None

    def add(self, keys: Tensor, scale: float) -> None:
        """Take in inputs (n, d) with weight `scale`."""
        keys = keys.double()
        self._gram += scale * keys.T @ keys
        self._factor = None

    def solve(self, weight: Tensor, moments: Tensor) -> Tensor:
        """The edited weight (out, d) from W0 and moments = sum s v k^T (out, d), in the format of W0."""
        if self._factor is None:
            self._factor = torch.linalg.cholesky(self._gram)
        right = self._lam * weight.double() + moments.double()
        return torch.cholesky_solve(right.T, self._factor).T.to(weight)


def key_value_maps(unet: nn.Module) -> Iterable[tuple[str, nn.Linear]]:
    """The key and value maps of all cross-attentions, with their names; their inputs are text states."""
    for name, attention in cross_attentions(unet).items():
        yield f"{name}.to_k", attention.to_k
        yield f"{name}.to_v", attention.to_v
