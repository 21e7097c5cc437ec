"""The loss that SalUn, EraseDiff and ScissorHands share: predict the concept's images as under another prompt."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.erasers.images import RelabelBatch
from shared.diffusion.erasers.noising import predict


def relabel_loss(unet: nn.Module, batch: RelabelBatch) -> Tensor:
    """MSE(eps(x_t, c_f), stopgrad eps(x_t', c_a)): the student's own prediction under the anchor is the target."""
    forget = batch.forget
    with torch.no_grad():
        target = predict(unet, batch.target_latents, forget.timesteps, batch.anchor)
    return F.mse_loss(predict(unet, forget.latents, forget.timesteps, forget.states), target)
