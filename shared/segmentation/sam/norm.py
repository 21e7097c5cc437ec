"""Layer normalisation over the channels of a map."""

import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor


class ChannelNorm(LayerNorm2d):
    """The package's LayerNorm2d (same weights, same outputs) in one pass instead of seven, channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
