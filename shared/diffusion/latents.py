"""Latents of image sets, computed once: training of a latent diffusion model never runs the encoder again."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shared.files import atomic_path


@dataclass(frozen=True)
class Latents:
    """mean, std (N, C, h, w): the autoencoder's posterior of each image, scaled as the U-Net takes latents."""

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One draw (B, C, h, w) from the posteriors of images `rows` (B,), from a CPU generator."""
        mean = self.mean[rows]
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + self.std[rows] * noise

    def to(self, device: torch.device | str) -> "Latents":
        """The same on a device."""
        return Latents(self.mean.to(device), self.std.to(device))


@torch.no_grad()
def encode_images(pipe: Any, batches: Iterable[Tensor]) -> Latents:
    """Posteriors of batches of images (B, 3, H, W) in [0, 1] under the autoencoder of a `TextToImage`: float32, CPU."""
    means, deviations = [], []
    for images in batches:
        posterior = pipe.vae.encode(images.to(pipe.device, pipe.vae.dtype) * 2 - 1).latent_dist
        scale = pipe.vae.config.scaling_factor
        means.append((posterior.mean * scale).float().cpu())
        deviations.append((posterior.std * scale).float().cpu())
    return Latents(torch.cat(means), torch.cat(deviations))


def cached_latents(path: str | Path, key: str, make: Callable[[], Latents]) -> Latents:
    """Latents from a safetensors file of this key, else made and written.

    key: digest of what they depend on: the images' content, the autoencoder, the resolution. A file of another key, or
    a damaged one, is made again.
    """
    path = Path(path)
    found = _read(path, key)
    if found is None:
        found = make()
        with atomic_path(path) as temporary:
            tensors = {"mean": found.mean.contiguous(), "std": found.std.contiguous()}
            save_file(tensors, temporary, {"key": key})
    return found


def _read(path: Path, key: str) -> Latents | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return Latents(file.get_tensor("mean"), file.get_tensor("std"))
    except SafetensorError as error:
        warnings.warn(f"{path}: damaged ({error}); the latents are computed again", stacklevel=3)
        return None
