"""Forget-Me-Not (Zhang et al., 2023, arXiv:2303.17591): cross-attention stops looking at the concept's words."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.attention import captured_attention
from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import RandomImages
from shared.diffusion.erasers.inversion import invert
from shared.diffusion.erasers.noising import Noised, predict
from shared.diffusion.erasers.options import InversionOptions, IterationOptions
from shared.diffusion.erasers.tokens import token_mask
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import train_only
from shared.options import Count, NonNegative, Positive


class FmnOptions(IterationOptions):
    """use_pooler: attention to the end and padding positions counts too; they carry the whole caption.

    inversion: first train the concept's token embeddings on its images, and erase these (UnlearnCanvas, which then has
    lr 2e-5 and 100 iterations).
    """

    trains: UnetSubset = "all"
    lr: Positive = 2e-6
    batch: Count = 1
    iterations: Count = 35
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    use_pooler: bool = False
    inversion: InversionOptions | None = None


def fmn_loss(unet: nn.Module, batch: Noised, positions: Tensor) -> Tensor:
    """Frobenius norm of all cross-attention probabilities at `positions` (B, L) bool; the predicted noise is unused.

    A norm is no mean over samples: with a batch cut into micro-batches it is another loss.
    """
    with captured_attention(unet) as probabilities:
        predict(unet, batch.latents, batch.timesteps, batch.states)
    looked_at = positions[:, None, None, :]
    return torch.stack([(p * looked_at).square().sum() for p in probabilities.values()]).sum().sqrt()


def fmn(unet: nn.Module, concept: Concept, options: FmnOptions, context: EraseContext) -> Erased:
    """Train on images of the concept with its prompts."""
    images = concept.images("forget")
    if options.inversion is not None:
        images = replace(images, states=invert(unet, concept, options.inversion, context))
    train_only(unet, options.trains)
    word = context.tokens(concept.name)
    length = images.states.shape[1]
    masks = [token_mask(context.tokens(p), word, length, p, options.use_pooler) for p in concept.prompts]
    positions = torch.stack(masks).to(images.mean.device)
    result = context.fit(
        unet,
        lambda _, generator: RandomImages(images, context.abar, options.batch, options.iterations, generator),
        lambda net, batch: fmn_loss(net, batch, positions[batch.prompt]),
        options,
    )
    return Erased(unet, fit=result)
