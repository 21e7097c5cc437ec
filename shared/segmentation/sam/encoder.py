"""The image encoder of the package `segment-anything`, with position tables for another image size and less memory."""

from functools import partial

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn

from shared.segmentation.sam.options import SamSize, VitSize


class RelativeAttention(Attention):
    """The package's attention with decomposed relative positions, without its (tokens x tokens) map.

    The map is q k / sqrt(d) + q R_h[y, y'] + q R_w[x, x']. That is one inner product of longer vectors: [q / sqrt(d),
    q R_h[y, .], q R_w[x, .]] with [k, onehot(y'), onehot(x')]. Fused attention takes those; at 64x64 tokens the map
    of one image would be 0.8 GB. Weights and outputs are the package's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, D) to (B, H, W, D)."""
        B, H, W, D = x.shape
        q, k, v = self.qkv(x).reshape(B, H * W, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q_bnhwd = q.reshape(B, self.num_heads, H, W, -1)
        rows = torch.einsum("bnhwd,hkd->bnhwk", q_bnhwd, get_rel_pos(H, H, self.rel_pos_h)).flatten(2, 3)
        columns = torch.einsum("bnhwd,wkd->bnhwk", q_bnhwd, get_rel_pos(W, W, self.rel_pos_w)).flatten(2, 3)
        queries = torch.cat([q * self.scale, rows, columns], dim=-1)
        keys = torch.cat([k, _one_hot(H, W, k).expand(B, self.num_heads, -1, -1)], dim=-1)
        # fused kernels want equal lengths, and on GPUs multiples of eight
        length = -(-queries.shape[-1] // 8) * 8
        queries, keys, values = (F.pad(t, (0, length - t.shape[-1])) for t in (queries, keys, v))
        out = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)[..., : v.shape[-1]]
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(B, H, W, D))
        return projected


def _one_hot(H: int, W: int, like: Tensor) -> Tensor:
    """Row and column of each of H*W positions, one-hot: (H*W, H + W)."""
    rows = torch.eye(H, dtype=like.dtype, device=like.device).repeat_interleave(W, 0)
    columns = torch.eye(W, dtype=like.dtype, device=like.device).repeat(H, 1)
    return torch.cat([rows, columns], dim=1)


class VitEncoder(ImageEncoderViT):
    """ViT-B, -L, -H and smaller ones; state dict as in the released files.

    Where the model's images have another size than the weights were made for (`VitSize.grid`), the absolute table is
    resized bicubically and the relative tables of global blocks linearly, both in the forward pass.
    """

    def __init__(self, size: SamSize) -> None:
        vit = size.encoder
        assert isinstance(vit, VitSize)
        grid = vit.grid or size.tokens
        super().__init__(
            img_size=grid * vit.patch,
            patch_size=vit.patch,
            embed_dim=vit.dim,
            depth=vit.depth,
            num_heads=vit.heads,
            out_chans=size.width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=vit.window,
            global_attn_indexes=tuple(vit.global_blocks),
        )
        self.img_size = size.image  # the package pads images and enlarges masks to this
        for block in self.blocks:
            side = block.window_size or grid
            block.attn = RelativeAttention(vit.dim, vit.heads, use_rel_pos=True, input_size=(side, side))

    @property
    def early_module(self) -> nn.Module:
        """The first block that attends globally; its output is the early feature (B, h, w, dim)."""
        return next(block for block in self.blocks if block.window_size == 0)

    def early(self, output: Tensor) -> Tensor:
        """What the early module returns, channels last."""
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to embeddings (B, width, h, w)."""
        x = self.patch_embed(x)
        x = x + self._positions(x.shape[1], x.shape[2])
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding

    def _positions(self, h: int, w: int) -> Tensor:
        table: Tensor = self.pos_embed
        if table.shape[1:3] == (h, w):
            return table
        resized = F.interpolate(table.permute(0, 3, 1, 2), (h, w), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)
