"""Pictures as the model takes them: the longer side scaled to the square input, the rest padded at the right and
bottom; and masks back at the picture's own size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shared.segmentation.resize import resize, resize_image
from shared.segmentation.samples import Array


class Inputs(NamedTuple):
    """images: (B, 3, S, S) uint8, 0 in the padding; sizes: (B, 2) int64, height and width of each picture in it."""

    images: Tensor
    sizes: Tensor


def fitted_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side becomes `side` pixels."""
    factor = side / max(shape[:2])
    height, width = (min(side, max(1, round(length * factor))) for length in shape[:2])
    return height, width


def fitted(images: Sequence[Array], side: int) -> Inputs:
    """Pictures (H, W, 3) uint8 of any sizes."""
    squares = np.zeros((len(images), side, side, 3), np.uint8)
    sizes = [fitted_size(image.shape, side) for image in images]
    for square, image, (height, width) in zip(squares, images, sizes, strict=True):
        square[:height, :width] = resize_image(image, (height, width))
    return Inputs(torch.from_numpy(squares.transpose(0, 3, 1, 2).copy()), torch.tensor(sizes))


def fitted_mask(mask: Array, side: int) -> Array:
    """A mask (H, W) bool in the square: (side, side) float32 in 0..1."""
    height, width = fitted_size(mask.shape, side)
    square = np.zeros((side, side), np.float32)
    square[:height, :width] = resize(mask.astype(np.float32), (height, width))
    return square


def at_own_size(logits: Tensor, side: int, shape: Sequence[int]) -> Tensor:
    """Low-resolution logits (N, L, L) of one picture of `shape` (H, W): enlarged to the square, cut to the picture, and
    resized to it, (N, H, W)."""
    large = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)
    height, width = fitted_size(shape, side)
    cut = large[..., :height, :width]
    size = (shape[0], shape[1])
    return F.interpolate(cut, size, mode="bilinear", align_corners=False)[:, 0]
