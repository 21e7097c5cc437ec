"""Prompts of many images in one batch, and their embedding for the decoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """N prompts of one kind, each for one mask of one image.

    image: (N,) index of the image among the embeddings. points: (N, P, 2) as x, y in pixels of the model's input, with
    labels (N, P): 1 foreground, 0 background, -1 none (padding). boxes: (N, 4) as x0, y0, x1, y1. masks: (N, 1, L, L)
    with L = `SamSize.low_res`. What is None is not prompted with.
    """

    image: Tensor
    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.labels is None):
            raise ValueError("points and labels go together")
        for name, ndim in (("points", 3), ("labels", 2), ("boxes", 2), ("masks", 4)):
            value = getattr(self, name)
            if value is not None and (value.ndim != ndim or len(value) != len(self.image)):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {ndim} axes and {len(self)} prompts")

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, chosen: slice) -> "Prompts":
        """Some of the prompts."""
        return self._each(lambda value: value[chosen])

    def to(self, device: torch.device | str) -> "Prompts":
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Prompts":
        others = (self.points, self.labels, self.boxes, self.masks)
        return Prompts(change(self.image), *(None if value is None else change(value) for value in others))


@dataclass(frozen=True)
class EncodedPrompts:
    """Embedded prompts. image: (N,); sparse: (N, T, C), rows shorter than T padded; valid: (N, T), False at padding,
    or None without any; dense: (N, C, h, w), or (1, C, 1, 1) if no prompt has a mask.
    """

    image: Tensor
    sparse: Tensor
    valid: Tensor | None
    dense: Tensor


def encode_prompts(prompt_encoder: Any, prompts: Prompts | Sequence[Prompts]) -> EncodedPrompts:
    """Embed prompts with the package's PromptEncoder, several kinds as one batch in the given order.

    Kinds have different numbers of tokens (a box 2, P points P + 1, a mask 0); the padding is masked in attention.
    """
    groups = [prompts] if isinstance(prompts, Prompts) else list(prompts)
    if not groups:
        raise ValueError("no prompts given; an image without objects has Prompts of length 0")
    embedded = [_embed(prompt_encoder, group) for group in groups]
    lengths = [sparse.shape[1] for sparse, _ in embedded]
    longest = max(lengths)
    sparse = torch.cat([F.pad(sparse, (0, 0, 0, longest - sparse.shape[1])) for sparse, _ in embedded])
    image = torch.cat([group.image for group in groups]).to(sparse.device)
    return EncodedPrompts(image, sparse, _valid(groups, lengths, sparse), _dense(prompt_encoder, embedded))


def _embed(prompt_encoder: Any, prompts: Prompts) -> tuple[Tensor, Tensor | None]:
    """Sparse (N, T, C) and dense (N, C, h, w) embedding; None for the dense one of prompts without masks."""
    points = None if prompts.points is None else (prompts.points, prompts.labels)
    sparse, dense = prompt_encoder(points=points, boxes=prompts.boxes, masks=prompts.masks)
    if points is None and prompts.boxes is None:  # the package makes one row if nothing tells it how many
        sparse = sparse[:1].expand(len(prompts), -1, -1)
    return sparse, None if prompts.masks is None else dense


def _valid(groups: list[Prompts], lengths: list[int], sparse: Tensor) -> Tensor | None:
    if len(set(lengths)) == 1:
        return None
    own = torch.tensor(lengths, device=sparse.device)
    length = own.repeat_interleave(torch.tensor([len(group) for group in groups], device=sparse.device))
    return torch.arange(sparse.shape[1], device=sparse.device) < length[:, None]


def _dense(prompt_encoder: Any, embedded: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    none: Tensor = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    masked = next((dense for _, dense in embedded if dense is not None), None)
    if masked is None:
        return none
    shape = masked.shape[1:]
    return torch.cat([none.expand(len(sparse), *shape) if dense is None else dense for sparse, dense in embedded])
