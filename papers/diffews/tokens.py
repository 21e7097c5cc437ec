"""Examples as tokens of a CLIP image encoder, for the cross-attention in the place of the text (TCA of DiffewS,
arXiv:2410.02369, section 3.1)."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.diffews.pictures import painted, target

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of RGB in 0..1
STD = (0.26862954, 0.26130258, 0.27577711)


class Tokens(NamedTuple):
    """states: (B, L, D) tokens of all examples of a query; visible: (B, L), 1 for those that count, or None for all."""

    states: Tensor
    visible: Tensor | None


def image_tokens(encoder: Any, images: Tensor, masks: Tensor, injection: str, num: int) -> Tokens:
    """Tokens of examples (num * K, 3, S, S) in [-1, 1] with masks (num * K, S, S) bool, those of a query together.

    encoder: CLIP's image tower (`CLIPVisionModel`). injection: "concat" adds the tokens of the painted mask, "multiply"
    blackens what is outside of it, "add" is the mean of both pictures' tokens, "mask" hides patches outside of it, but
    never the class token.
    """
    visible = None
    match injection:
        case "concat":
            states = torch.cat([_states(encoder, images), _states(encoder, painted(masks))], 1)
        case "multiply":
            states = _states(encoder, target("object", images, masks))
        case "add":
            states = (_states(encoder, images) + _states(encoder, painted(masks))) / 2
        case "mask":
            states = _states(encoder, images)
            side = math.isqrt(states.shape[1] - 1)
            patches = F.interpolate(masks[:, None].float(), (side, side), mode="nearest").flatten(1)
            visible = torch.cat([patches.new_ones(len(patches), 1), patches], 1).reshape(num, -1)
        case _:
            raise ValueError(f"tokens have no injection '{injection}'")
    return Tokens(states.reshape(num, -1, states.shape[2]), visible)


def _states(encoder: Any, pictures: Tensor) -> Tensor:
    """Last hidden states (B, 1 + patches, D) of pictures (B, 3, S, S) in [-1, 1]."""
    side = encoder.config.image_size
    resized = F.interpolate(pictures / 2 + 0.5, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (resized.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    states: Tensor = encoder((resized - mean) / std).last_hidden_state
    return states
