"""Where adversarial tokens stand in a prompt: [start][adversarial and prompt tokens][end ... end].

prefix: before the prompt; suffix: behind it; middle: between its halves; even: spread with equal gaps; every_third: one
before the 1st, 4th, 7th, ... word of the prompt, and what is left behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from papers.unlearndiffatk.options import Place
from shared.errors import DataError


def gaps(place: Place, num_tokens: int, num_words: int) -> list[int]:
    """For each adversarial token, in order, how many prompt tokens come before it."""
    if place == "prefix":
        return [0] * num_tokens
    if place == "suffix":
        return [num_words] * num_tokens
    if place == "middle":
        return [num_words // 2] * num_tokens
    if place == "even":
        return [index * num_words // num_tokens for index in range(num_tokens)]
    return [min(3 * index, num_words) for index in range(num_tokens)]


@dataclass(frozen=True)
class Layout:
    """Token ids (B, L) with gaps for adversarial tokens at `positions` (B, N); `lengths`: tokens between start and
    end."""

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]

    def keep(self, rows: Tensor) -> "Layout":
        """The layout of some of the prompts."""
        return Layout(self.ids[rows], self.positions[rows], tuple(self.lengths[i] for i in rows.tolist()))

    def embeddings(self, adversarial: Tensor, table: Tensor) -> Tensor:
        """(B, L, d): embeddings of the prompts with those (B, N, d) put in. table (V, d): of the whole vocabulary."""
        fixed = table[self.ids]
        rows = torch.arange(len(fixed), device=fixed.device)[:, None]
        return fixed.index_put((rows, self.positions), adversarial)

    def filled(self, tokens: Tensor) -> Tensor:
        """(B, L) int64: ids with the adversarial tokens (B, N) put in."""
        return self.ids.scatter(1, self.positions, tokens)

    def content(self, ids: Tensor) -> list[list[int]]:
        """Each row's tokens between start and end."""
        return [row[1 : 1 + length] for row, length in zip(ids.tolist(), self.lengths, strict=True)]


def lay_out(
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    place: Place,
    *,
    start: int,
    end: int,
    window: int,
    names: Sequence[str],
    device: torch.device | str = "cpu",
) -> Layout:
    """The layout of prompts given as token ids without specials; window: L; names: of the prompts, for errors.

    Raises DataError when a prompt and its adversarial tokens do not fit between start and one end token.
    """
    ids, positions = [], []
    for prompt, name in zip(prompts, names, strict=True):
        if len(prompt) + num_tokens > window - 2:
            count = f"{len(prompt)} tokens and {num_tokens} adversarial ones"
            raise DataError(f"{name}: {count} do not fit into the window of {window}; drop it or use fewer tokens")
        before = gaps(place, num_tokens, len(prompt))
        spots = [1 + gap + index for index, gap in enumerate(before)]
        row, words = [start, *[end] * (window - 1)], iter(prompt)
        for position in range(1, 1 + len(prompt) + num_tokens):
            if position not in spots:
                row[position] = next(words)
        ids.append(row)
        positions.append(spots)
    lengths = tuple(len(prompt) + num_tokens for prompt in prompts)
    return Layout(
        torch.tensor(ids, device=device),
        torch.tensor(positions, dtype=torch.int64, device=device).view(len(ids), num_tokens),
        lengths,
    )
