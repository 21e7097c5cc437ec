"""A linear autoencoder in the place of Stable Diffusion's: closed form, latents 12 x 8 x 8 of images 32 x 32.

Patches of `patch` x `patch` pixels are flattened (pixel unshuffle) and projected on their leading principal
components; `scaling_factor` is one over the standard deviation of the latents, as Stable Diffusion's 0.18215 is.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (diffusers looks here for it when it reads a folder)
from torch import Tensor, nn

from shared.diffusion.saved import SavedModel


class LinearAutoencoder(SavedModel):
    """The calls of `AutoencoderKL`: encode(x).latent_dist.{mean,mode(),sample()}, decode(z).sample.

    Images (B, in_channels, H, W) in [-1, 1]; latents (B, latent_channels, H / patch, W / patch), not yet scaled by
    `config.scaling_factor`. The distribution has no width: sample() is the mean.
    block_out_channels: channels after each halving of the image; diffusers takes the patch size from its length.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 12,
        block_out_channels: tuple[int, ...] = (3, 12, 48),
        sample_size: int = 32,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.patch = 2 ** (len(block_out_channels) - 1)
        features = in_channels * self.patch**2
        self.mean = nn.Parameter(torch.zeros(features))
        self.components = nn.Parameter(torch.eye(latent_channels, features))  # (latent channels, features), orthonormal
        self.widths = nn.Parameter(torch.ones(latent_channels))  # what a component is divided by
        self.requires_grad_(False)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Images to latents, as an AutoencoderKLOutput (or a tuple)."""
        features = F.pixel_unshuffle(x, self.patch).movedim(1, -1) - self.mean
        mean = (F.linear(features, self.components) / self.widths).movedim(-1, 1)
        # deterministic: the second half, a log variance, is not used
        distribution = DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], 1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None) -> Any:
        """Latents to images, as a DecoderOutput (or a tuple); generator: as in AutoencoderKL, unused."""
        features = (z.movedim(1, -1) * self.widths) @ self.components + self.mean
        images = F.pixel_shuffle(features.movedim(-1, 1), self.patch)
        return DecoderOutput(sample=images) if return_dict else (images,)


@torch.no_grad()
def fit_autoencoder(
    images: Tensor, latent_channels: int = 12, halvings: int = 2, balance: float = 0.5
) -> LinearAutoencoder:
    """Principal components of the patches of images (N, C, H, W) in [-1, 1]: no seed, no iteration.

    balance: component k is divided by its standard deviation to this power: 0 leaves them as they are, 1 makes all
    equally wide. What decides between styles lies in components that are ten times narrower than the first, and
    drowns in the noise of a diffusion model if they are left so. The sign of a component is free: its largest entry is
    made positive.
    """
    channels, patch = images.shape[1], 2**halvings
    features = F.pixel_unshuffle(images, patch).movedim(1, -1).flatten(0, 2).double()
    mean = features.mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov(features.T))
    components = vectors.T.flip(0)[:latent_channels]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    components = components * largest.sign()
    variances = variances.flip(0)[:latent_channels]
    widths = variances ** (balance / 2)
    std = float((variances / widths.square()).mean().sqrt())  # of all latents, whose mean is 0
    autoencoder = LinearAutoencoder(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent_channels,
        block_out_channels=tuple(channels * 4**k for k in range(halvings + 1)),
        sample_size=images.shape[-1],
        scaling_factor=1 / std,
    )
    autoencoder.mean.copy_(mean)
    autoencoder.components.copy_(components)
    autoencoder.widths.copy_(widths)
    return cast(LinearAutoencoder, autoencoder.eval())
