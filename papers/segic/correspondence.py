"""Where an image resembles what an example shows (SegIC, arXiv:2311.14671, section 3.2).

With features x of the image and r of the example, both D numbers a token, and the example's foreground tokens F:

    pooled   a = cos(x, v),  v = mean over F of r                     the released code
    dense    a = mean over F of cos(x, r)                             the paper

Where all |r| = 1 the second is the first times |v|.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8  # least norm, below which a vector counts as so long


def token_masks(masks: Tensor, side: int) -> Tensor:
    """Masks (N, H, W) in 0..1 as tokens (N, side, side) of 0 or 1: resized bilinearly, then cut at one half.

    A small object may leave no token.
    """
    resized = F.interpolate(masks[:, None].float(), (side, side), mode="bilinear", align_corners=False)
    return (resized[:, 0] > 0.5).float()


def pooled(features: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """Mean of the features (I, D, h, w) of image index[n] over tokens (N, h, w) of mask n: (N, D), 0 without any."""
    flat = tokens.flatten(1)
    with torch.autocast(features.device.type, enabled=False):  # a sum over thousands of tokens
        sums = [features[i].flatten(1) @ mask for i, mask in zip(index.tolist(), flat, strict=True)]
    total = torch.stack(sums) if sums else features.new_zeros(0, features.shape[1])
    return total / flat.sum(1, keepdim=True).clamp(min=1)


def prototypes(features: Tensor, index: Tensor, tokens: Tensor, dense: bool) -> Tensor:
    """What the map is computed with, (N, D): v, or for the dense form the mean of the features of norm 1."""
    return pooled(F.normalize(features, dim=1, eps=EPS) if dense else features, index, tokens)


def similarity(
    features: Tensor, prototype: Tensor, index: Tensor, side: int, dense: bool = False, eps: float = EPS
) -> Tensor:
    """Similarity (N, side, side) in -1..1 of the image index[n] to prototype n.

    The features (I, D, h, w) are enlarged to `side` bilinearly before the cosine is taken. Enlarging is linear: the
    inner products are enlarged instead of the features, and only norms are made of the large ones.
    """
    norms = F.interpolate(features, (side, side), mode="bilinear", align_corners=False).norm(dim=1).clamp(min=eps)
    inner = [vector @ features[i].flatten(1) for i, vector in zip(index.tolist(), prototype, strict=True)]
    shape = features.shape[2:]
    maps = torch.stack(inner) if inner else features.new_zeros(0, shape[0] * shape[1])
    large = F.interpolate(maps.unflatten(1, shape)[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    found = large / norms[index]
    return found if dense else found / prototype.norm(dim=1).clamp(min=eps)[:, None, None]


def highest_points(maps: Tensor) -> Tensor:
    """(N, 2) float32 of x, y in pixels: the highest value of maps (N, H, W), the first in reading order of equals."""
    place = maps.flatten(1).argmax(1)
    width = maps.shape[2]
    return torch.stack([place % width, place // width], 1).float()
