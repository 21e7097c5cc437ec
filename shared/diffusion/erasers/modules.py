"""Parts and copies of a U-Net that erasers need."""

import copy
from typing import Any

from torch import nn


def frozen_copy(unet: nn.Module) -> nn.Module:
    """The model as it is now, in eval mode, frozen. Weights that are not trained are shared, not copied: of a large
    U-Net, cross-attention is a few percent."""
    shared = {id(p): p for p in unet.parameters() if not p.requires_grad}
    return copy.deepcopy(unet, memo=shared).eval().requires_grad_(False)


def cross_attentions(unet: nn.Module) -> dict[str, Any]:
    """Cross-attention modules (diffusers' `Attention`) by name, in the order of the network's modules."""
    return {name: module for name, module in unet.named_modules() if name.endswith(".attn2")}
