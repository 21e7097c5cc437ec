"""Masks as pictures and back: targets, injection, thresholds (DiffewS, arXiv:2410.02369, sections 3.2 and 3.3).

Pictures are (B, 3, H, W) float32 in [-1, 1], as autoencoders take them; masks (B, H, W) bool.
"""

import torch
from torch import Tensor

from papers.diffews.options import Answering

LEAST_PEAK = 1 / 255  # a picture that is nowhere brighter shows nothing


def painted(mask: Tensor) -> Tensor:
    """White where the mask is, black elsewhere."""
    return (2 * mask[:, None].float() - 1).expand(-1, 3, -1, -1)


def target(form: str, image: Tensor, mask: Tensor) -> Tensor:
    """What the model is to paint for a query image and its mask, by the option `target`."""
    inside = mask[:, None]
    black = torch.full_like(image, -1)
    match form:
        case "white":
            return painted(mask)
        case "object":
            return torch.where(inside, image, black)
        case "hole":
            return torch.where(inside, black, image)
        case "blend":
            return (image + painted(mask)) / 2
    raise ValueError(f"unknown target '{form}'")


def shown(injection: str, image: Tensor, mask: Tensor) -> Tensor:
    """The example as one picture, by the option `injection`; those that do not change the picture give the image."""
    match injection:
        case "multiply":
            return target("object", image, mask)
        case "add":
            return target("blend", image, mask)
    return image


def eight_bit(picture: Tensor) -> Tensor:
    """[-1, 1] to [0, 1] in steps of 1/255: clipped and *cut off*, not rounded, as a cast to 8 bits does."""
    return ((picture.float() / 2 + 0.5).clamp(0, 1) * 255).floor() / 255


def evidence(form: str, picture: Tensor, image: Tensor) -> Tensor:
    """How much the painted picture says "object", (B, 3, H, W) in [0, 1].

    The image is subtracted where the target contains it; a hole is what is darker than the image.
    """
    found = eight_bit(picture)
    match form:
        case "blend":
            return (2 * found - eight_bit(image)).clamp(0, 1)
        case "hole":
            return (eight_bit(image) - found).clamp(min=0)
    return found


def thresholds(evidence: Tensor, options: Answering) -> Tensor:
    """(B,) the value that a pixel's mean over the channels must exceed; 2 (never) for a black picture.

    The relative one is a share of the largest value of all pixels *and channels*. Where that is below 1/255, noise
    would become an object.
    """
    if options.threshold == "absolute":
        return evidence.new_full((len(evidence),), options.tau)
    peak = evidence.flatten(1).amax(1)
    return torch.where(peak < LEAST_PEAK, torch.full_like(peak, 2.0), options.tau * peak)
