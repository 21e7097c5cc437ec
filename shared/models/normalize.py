"""Normalisation inside the model, so that attacks and augmentation work on pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel. mean, std: one value a channel, on the scale of x (0 to 1).

    The buffers are constants of the data set, not weights: they are not saved and no mask or EMA
    sees them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        return (images - self.mean) / self.std
