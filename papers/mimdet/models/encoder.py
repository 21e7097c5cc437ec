"""MAE's encoder behind a stem, on a sample of the tokens."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from papers.mimdet.models.positions import ResizedTables, sincos_table
from papers.mimdet.models.sampling import random_order, take_tokens, valid_tokens
from papers.mimdet.models.stem import build_stem
from papers.mimdet.options import MimDetOptions


class Encoded(NamedTuple):
    """tokens: (N, K, D), the sampled ones; order: (N, L), of which the first K were sampled, or None if all tokens
    are there in their places; maps: of the stem, the last one (N, D, h, w) holds what became tokens."""

    tokens: Tensor
    order: Tensor | None
    maps: list[Tensor]


class Encoder(nn.Module):
    """Names are those of MAE's and of the released files. Position tables are frozen; there is no class token, although
    the table has a row for one."""

    pos_embed: Tensor

    def __init__(self, options: MimDetOptions) -> None:
        super().__init__()
        self.patch = options.patch
        self.patch_embed = build_stem(options)
        self.register_buffer("pos_embed", sincos_table(options.dim, options.grid))
        self.blocks = transformer_blocks(options.dim, options.heads, options.depth, options.drop_path)
        self.norm = nn.LayerNorm(options.dim)
        self.checkpointing = options.checkpointing
        self.positions = ResizedTables()
        initialise_linear(self)

    def forward(self, images: Tensor, sizes: Tensor, ratio: float, generator: torch.Generator | None = None) -> Encoded:
        """Images (N, 3, H, W) of sizes (N, 2) without padding. With ratio 1 every token takes part, padding too."""
        maps = self.patch_embed(images)
        grid = maps[-1].shape[2], maps[-1].shape[3]
        tokens = maps[-1].flatten(2).transpose(1, 2) + self.positions.get(self.pos_embed, grid)
        order = None
        if ratio < 1:
            order = random_order(valid_tokens(sizes, grid, self.patch), images.device, generator)
            tokens = take_tokens(tokens, order[:, : num_kept(order.shape[1], ratio)])
        tokens = run_blocks(self.blocks, tokens, self.checkpointing and self.training)
        return Encoded(self.norm(tokens), order, maps)


def num_kept(num_tokens: int, ratio: float) -> int:
    """Tokens that are sampled: cut off, as in the released code, and at least one."""
    return max(1, int(num_tokens * ratio))


def transformer_blocks(dim: int, heads: int, depth: int, drop_path: float = 0.0, eps: float = 1e-5) -> nn.ModuleList:
    """Pre-norm blocks with stochastic depth rising linearly from 0 to drop_path.

    eps: of the layer norms, 1e-5 in the released configurations of MIMDet; MAE was trained with 1e-6.
    """
    norm: Any = partial(nn.LayerNorm, eps=eps)
    rates = np.linspace(0, drop_path, depth).tolist()
    return nn.ModuleList(Block(dim, heads, qkv_bias=True, drop_path=rate, norm_layer=norm) for rate in rates)


def run_blocks(blocks: nn.ModuleList, x: Tensor, recompute: bool = False) -> Tensor:
    """Tokens (N, L, D) through all blocks. recompute: in the backward pass, instead of keeping activations."""
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
    return x


def initialise_linear(module: nn.Module) -> None:
    """Xavier uniform weights and zero biases of all fully connected layers, as MAE's."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
