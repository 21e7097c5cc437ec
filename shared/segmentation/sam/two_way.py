"""The decoder's two-way transformer for prompts of several images, with padding, in fused attention."""

from typing import Any

import torch.nn.functional as F
from segment_anything.modeling import TwoWayTransformer
from torch import Tensor


class BatchedTwoWayTransformer(TwoWayTransformer):
    """The package's transformer (same weights, same outputs), where prompts share what they have in common.

    Image tokens may come once per image with an index of each prompt's image: what the first layer computes from them
    alone is then computed once per image. Padded prompt tokens are never attended to.
    """

    def forward(
        self,
        image_embedding: Tensor,
        image_pe: Tensor,
        point_embedding: Tensor,
        index: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """image_embedding: (M, C, h, w). image_pe: (1, C, h, w), or one each. point_embedding: (N, T, C).

        index: (N,) which of the M each prompt sees; None: M = N, one each. valid: (N, T), False at padding.
        Returns tokens (N, T, C) and image tokens (N, h*w, C).
        """
        keys = image_embedding.flatten(2).transpose(1, 2)
        key_pe = image_pe.flatten(2).transpose(1, 2)
        mask = None if valid is None else valid[:, None, None, :]
        queries = point_embedding
        for layer in self.layers:
            queries, keys = _layer(layer, queries, keys, point_embedding, key_pe, index, mask)
            index, key_pe = None, key_pe if len(key_pe) == 1 or index is None else key_pe[index]
        final = attend(self.final_attn_token_to_image, queries + point_embedding, keys + key_pe, keys)
        return self.norm_final_attn(queries + final), keys


def _layer(
    layer: Any, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor, index: Tensor | None, mask: Any
) -> tuple[Tensor, Tensor]:
    """One block of the package; keys (M, h*w, C) come in shared and go out one per prompt."""
    if layer.skip_first_layer_pe:
        queries = attend(layer.self_attn, queries, queries, queries, mask=mask)
    else:
        q = queries + query_pe
        queries = queries + attend(layer.self_attn, q, q, queries, mask=mask)
    queries = layer.norm1(queries)
    placed = keys + key_pe
    queries = queries + attend(layer.cross_attn_token_to_image, queries + query_pe, placed, keys, index)
    queries = layer.norm2(queries)
    queries = layer.norm3(queries + layer.mlp(queries))
    answer = attend(layer.cross_attn_image_to_token, placed, queries + query_pe, queries, index, mask, of_queries=True)
    return queries, layer.norm4((keys if index is None else keys[index]) + answer)


def attend(
    attention: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor | None = None,
    mask: Tensor | None = None,
    of_queries: bool = False,
) -> Tensor:
    """The package's attention with its own projections, fused.

    index: which row of k and v (`of_queries`: of q) each prompt reads, after the projection. mask: True where a key
    may be attended to, broadcast to (N, heads, queries, keys).
    """
    q, k, v = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
    if index is not None:
        q, k, v = (q[index], k, v) if of_queries else (q, k[index], v[index])
    q, k, v = (x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    projected: Tensor = attention.out_proj(out.transpose(1, 2).flatten(2))
    return projected
