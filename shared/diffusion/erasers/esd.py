"""ESD (Gandikota et al., ICCV 2023, arXiv:2303.07345): train the model away from the concept it was guided to.

ESD-x trains cross-attention (`trains: xattn`), ESD-u everything else but the time embedding and the output layers
(`noxattn`).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.draws import DrawnBatch, StudentDraws
from shared.diffusion.erasers.modules import frozen_copy
from shared.diffusion.erasers.noising import frozen_pair, predict
from shared.diffusion.erasers.options import DrawOptions
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import train_only
from shared.options import Count, NonNegative, Positive


class EsdOptions(DrawOptions):
    """eta: strength of the negative guidance in the target; 0 trains the concept to look like the empty prompt."""

    trains: UnetSubset = "cross_attention"
    lr: Positive = 1e-5
    batch: Count = 1
    iterations: Count = 1000
    eta: NonNegative = 1.0


def esd_target(
    frozen: nn.Module, latents: Tensor, timesteps: Tensor, concept: Tensor, null: Tensor, eta: float
) -> Tensor:
    """eps0(x_t, null) - eta (eps0(x_t, c) - eps0(x_t, null)), shaped as the latents, without gradient."""
    without, with_concept = frozen_pair(frozen, latents, timesteps, null, concept)
    return without - eta * (with_concept - without)


def esd_loss(unet: nn.Module, frozen: nn.Module, batch: DrawnBatch, eta: float) -> Tensor:
    """MSE(eps(x_t, c), target): equation 6 with the empty prompt in place of the unconditional score."""
    target = esd_target(frozen, batch.latents, batch.timesteps, batch.concept, batch.null, eta)
    return F.mse_loss(predict(unet, batch.latents, batch.timesteps, batch.concept), target)


def esd(unet: nn.Module, concept: Concept, options: EsdOptions, context: EraseContext) -> Erased:
    """Train on the student's own half-finished drawings of the concept's prompts."""
    train_only(unet, options.trains)
    frozen = frozen_copy(unet)
    prompts, null = context.encode(concept.prompts), context.encode([""])
    result = context.fit(
        unet,
        lambda _, generator: StudentDraws(unet, prompts, null, context.abar, context.shape, options, generator),
        lambda net, batch: esd_loss(net, frozen, batch, options.eta),
        options,
    )
    return Erased(unet, fit=result)
