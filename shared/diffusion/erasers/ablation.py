"""Concept ablation (Kumari et al., 2023, arXiv:2303.13516), model-based: see the anchor where the concept is named."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import RandomImages
from shared.diffusion.erasers.noising import Noised, predict
from shared.diffusion.erasers.options import IterationOptions
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import train_only
from shared.options import Count, NonNegative, Positive


class AblationOptions(IterationOptions):
    """lr: the release multiplies its base rate of 2e-6 by batch and devices; here it is the product.

    anchor_weight: weight of the ordinary loss on the anchors' images: 0.2 in the release when its batches are paired
    with them, else none. optimizer and weight_decay are those of the latent-diffusion code that it stands on.
    """

    trains: UnetSubset = "key_value"
    lr: Positive = 8e-6
    batch: Count = 4
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    anchor_weight: NonNegative = 0.0


def ablation_loss(unet: nn.Module, batch: Noised, concept: Tensor, anchor_weight: float) -> Tensor:
    """MSE(eps(x_t, c*), stopgrad eps(x_t, c)) + anchor_weight MSE(eps(x_t, c), e).

    batch: images of the anchor prompts c, noised; concept (B, L, d): states of c*, the prompts with the concept swapped
    in. The target comes from the student itself.
    """
    with torch.set_grad_enabled(anchor_weight > 0 and torch.is_grad_enabled()):
        anchor = predict(unet, batch.latents, batch.timesteps, batch.states)
    loss = F.mse_loss(predict(unet, batch.latents, batch.timesteps, concept), anchor.detach())
    return loss + anchor_weight * F.mse_loss(anchor, batch.noise) if anchor_weight else loss


def ablation(unet: nn.Module, concept: Concept, options: AblationOptions, context: EraseContext) -> Erased:
    """Train on images generated from the anchors; the i-th prompt is the i-th anchor with the concept swapped in."""
    train_only(unet, options.trains)
    concept.anchor_prompts()
    images, states = concept.images("anchor"), context.encode(concept.prompts)
    result = context.fit(
        unet,
        lambda _, generator: RandomImages(images, context.abar, options.batch, options.iterations, generator),
        lambda net, batch: ablation_loss(net, batch, states[batch.prompt], options.anchor_weight),
        options,
    )
    return Erased(unet, fit=result)
