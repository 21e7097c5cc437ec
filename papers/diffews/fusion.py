"""Self-attention that looks at two pictures (DiffewS, arXiv:2410.02369, section 3.1).

    Attention(Q_q, [K_q; K_s1; ...; K_sN], [V_q; V_s1; ...; V_sN])

with the layer's own weights for both. The examples pass through the U-Net first, and each self-attention leaves its
keys and values in a bank; the query's pass then reads the bank. The bank does not depend on the query: one bank serves
any number of queries, and its size is linear in the number of examples. In training, where every query has examples of
its own, both go through the U-Net as one batch, which comes to the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.errors import UserError


class Entry(NamedTuple):
    """What one self-attention keeps. keys, values: (G, L, C), G one for all queries or one for each, L tokens of all
    examples; visible: (G, L) bool, tokens that a query may look at, or None for all."""

    keys: Tensor
    values: Tensor
    visible: Tensor | None


Bank = dict[str, Entry]


class Fusion:
    """What the self-attentions of one U-Net do at the moment: nothing special, unless a context below is open."""

    def __init__(self) -> None:
        self.mode: Literal["plain", "write", "read", "joint"] = "plain"
        self.bank: Bank = {}
        self.shots = 1
        self.mutual = False
        self.visible: Tensor | None = None

    @contextmanager
    def writing(self, shots: int, visible: Tensor | None = None) -> Iterator[Bank]:
        """The pass of the examples, `shots` rows after each other for each query: fills the bank that it gives.

        visible: (rows, h, w) bool at the latents' resolution, which part of an example its query may look at.
        """
        with self._open("write", {}, shots, visible) as bank:
            yield bank

    @contextmanager
    def reading(self, bank: Bank) -> Iterator[None]:
        """The pass of the queries."""
        with self._open("read", bank, 1, None):
            yield

    @contextmanager
    def joint(self, shots: int, visible: Tensor | None = None, mutual: bool = False) -> Iterator[None]:
        """One pass of B queries and then their B * shots examples. mutual: examples look at their query and at each
        other as well (QKV fusion), else each at itself alone."""
        with self._open("joint", {}, shots, visible, mutual):
            yield

    @contextmanager
    def _open(self, mode: Any, bank: Bank, shots: int, visible: Tensor | None, mutual: bool = False) -> Iterator[Bank]:
        self.mode, self.bank, self.shots, self.visible, self.mutual = mode, bank, shots, visible, mutual
        try:
            yield bank
        finally:
            self.mode, self.bank, self.shots, self.visible = "plain", {}, 1, None
            self.mutual = False

    def visible_tokens(self, num_tokens: int) -> Tensor | None:
        """`visible` at a layer's grid of `num_tokens`, to the nearest pixel: (rows / shots, shots * num_tokens)."""
        if self.visible is None:
            return None
        grid = grid_of(num_tokens, self.visible.shape[1:])
        small = F.interpolate(self.visible[:, None].float(), grid, mode="nearest") > 0.5
        return small.reshape(-1, self.shots * num_tokens)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fusion":
        copy = memo[id(self)] = Fusion()  # a copied U-Net starts without what a pass has left open
        return copy


class FusedAttention:
    """Attention processor of diffusers for the self-attention called `name`; without a bank the plain one."""

    def __init__(self, name: str, fusion: Fusion) -> None:
        self.name, self.fusion = name, fusion

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Tokens (B, T, C) to tokens (B, T, C)."""
        if encoder_hidden_states is not None or attention_mask is not None:
            raise UserError(f"{self.name}: fusion is for self-attention without a mask of its own")
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        found = self._attend(q, k, v, attn.heads)
        projected: Tensor = attn.to_out[1](attn.to_out[0](found))
        return projected / attn.rescale_output_factor

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        fusion, (rows, num_tokens) = self.fusion, k.shape[:2]
        if fusion.mode == "joint":
            return self._together(q, k, v, heads)
        if fusion.mode == "read" and self.name in fusion.bank:
            entry = fusion.bank[self.name]
            keys = torch.cat([k, entry.keys.expand(rows, -1, -1)], 1)
            values = torch.cat([v, entry.values.expand(rows, -1, -1)], 1)
            return attention(q, keys, values, heads, beside(rows, num_tokens, entry.visible))
        if fusion.mode == "write":
            visible = fusion.visible_tokens(num_tokens)
            fusion.bank[self.name] = Entry(one_row(k, fusion.shots), one_row(v, fusion.shots), visible)
        return attention(q, k, v, heads)

    def _together(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        shots, num_tokens = self.fusion.shots, q.shape[1]
        num = len(q) // (1 + shots)

        def joined(x: Tensor) -> Tensor:
            return torch.cat([x[:num], one_row(x[num:], shots)], 1)

        visible = beside(num, num_tokens, self.fusion.visible_tokens(num_tokens))
        if not self.fusion.mutual:
            queries = attention(q[:num], joined(k), joined(v), heads, visible)
            return torch.cat([queries, attention(q[num:], k[num:], v[num:], heads)])
        found = attention(joined(q), joined(k), joined(v), heads, visible)
        examples = found[:, num_tokens:].reshape(num * shots, num_tokens, -1)
        return torch.cat([found[:, :num_tokens], examples])


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, visible: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of tokens (B, T, C) to (B, L, C); visible: (B, L) bool."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = None if visible is None else visible[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def one_row(x: Tensor, shots: int) -> Tensor:
    """Tokens (G * shots, T, C) of examples, those of a query after each other: (G, shots * T, C)."""
    return x.reshape(-1, shots * x.shape[1], x.shape[2])


def beside(rows: int, num_tokens: int, visible: Tensor | None) -> Tensor | None:
    """Visible tokens (rows, num_tokens + L): all of a query's own, then those of its examples."""
    if visible is None:
        return None
    return torch.cat([visible.new_ones(rows, num_tokens), visible.expand(rows, -1)], 1)


def grid_of(num_tokens: int, size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a layer with so many tokens, of latents of `size`, which every level halves (rounded up)."""
    height, width = size
    while height * width > num_tokens:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != num_tokens:
        raise UserError(f"{num_tokens} tokens are no level of latents of {size[0]}x{size[1]}")
    return height, width


def install(unet: Any) -> Fusion:
    """Put the processors into the U-Net's self-attentions (`attn1`), and return what steers them.

    Raises UserError for attentions with norms of their own, which the processor would leave out.
    """
    fusion, processors = Fusion(), dict(unet.attn_processors)
    for name in self_attentions(unet):
        attn = unet.get_submodule(name)
        if any(getattr(attn, norm, None) is not None for norm in ("group_norm", "spatial_norm", "norm_q", "norm_k")):
            raise UserError(f"{name}: a self-attention with norms of its own cannot be fused")
        processors[f"{name}.processor"] = FusedAttention(name, fusion)
    unet.set_attn_processor(processors)
    return fusion


def self_attentions(unet: nn.Module) -> list[str]:
    """Names of the self-attentions, in the order of the modules."""
    return [name for name, _ in unet.named_modules() if name.split(".")[-1] == "attn1"]


def row_of(bank: Bank, row: int) -> Bank:
    """The bank of one of its rows."""
    rows = slice(row, row + 1)
    return {
        name: Entry(entry.keys[rows], entry.values[rows], None if entry.visible is None else entry.visible[rows])
        for name, entry in bank.items()
    }


def sampled(bank: Bank, shots: int, generator: torch.Generator) -> Bank:
    """The bank with as many tokens of each layer as one example has, drawn without replacement (section 4.5)."""
    found = {}
    for name, entry in bank.items():
        total = entry.keys.shape[1]
        kept = torch.randperm(total, generator=generator)[: total // shots].sort().values.to(entry.keys.device)
        visible = None if entry.visible is None else entry.visible[:, kept]
        found[name] = Entry(entry.keys[:, kept], entry.values[:, kept], visible)
    return found
