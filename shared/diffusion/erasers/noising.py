"""The forward process, and a U-Net's prediction of its noise.

Notation of all erasers: z0 a clean latent (B, C, h, w); e noise; abar (T,) the cumulative product of the alphas;
x_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e; eps the student's prediction, eps0 that of the frozen original; states
(B, L, d) the text encoder's output for a prompt.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.train import add_noise


class Noised(NamedTuple):
    """Noisy images with their prompts: latents x_t (B, C, h, w), timesteps (B,) int64, noise e, states (B, L, d),
    prompt (B,) int64: which of the set's prompts it is."""

    latents: Tensor
    timesteps: Tensor
    noise: Tensor
    states: Tensor
    prompt: Tensor


def noised(clean: Tensor, noise: Tensor, timesteps: Tensor, abar: Tensor) -> Tensor:
    """x_t (B, C, h, w) of `clean` at `timesteps` (B,)."""
    return add_noise(clean, noise, abar.to(clean)[timesteps])


def predict(unet: nn.Module, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
    """eps(x_t, c): (B, C, h, w)."""
    return unet(latents, timesteps, encoder_hidden_states=states).sample


def frozen_pair(unet: nn.Module, latents: Tensor, timesteps: Tensor, *states: Tensor) -> list[Tensor]:
    """Predictions for the same images under several prompts, in one call, without gradient."""
    count = len(states)
    with torch.no_grad():
        both = predict(unet, latents.repeat(count, 1, 1, 1), timesteps.repeat(count), torch.cat(states))
    return list(both.chunk(count))


def simple_loss(unet: nn.Module, batch: Noised) -> Tensor:
    """L_simple = mean |e - eps(x_t, c)|^2."""
    return F.mse_loss(predict(unet, batch.latents, batch.timesteps, batch.states), batch.noise)


def draw_normal(shape: Any, generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise from a CPU generator, on the device and in the format of `like`."""
    return torch.randn(shape, generator=generator).to(like)
