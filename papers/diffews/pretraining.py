"""What DiffewS starts from: Stable Diffusion, or a small latent diffusion model that is trained here.

The small one has a linear codec (principal components of patches, in closed form) in the place of the autoencoder, and
a constant in the place of the text encoder's states; its U-Net learns to denoise images without any condition.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.diffews.network import Latent
from papers.diffews.options import Pretraining, Process, SmallUnet, StableDiffusion
from papers.diffews.pictures import painted
from papers.diffews.process import drawn_times, mixed, signal, velocity
from shared.diffusion.text_to_image import load_text_to_image
from shared.diffusion.world.autoencoder import LinearAutoencoder, fit_autoencoder
from shared.segmentation.context import Context
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.evaluate.episodes import squared
from shared.segmentation.samples import Array, Source
from shared.segmentation.steps import Step, Steps, plan_epoch
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions

COSINE = Process(scheme="mn2m", schedule="cosine")  # the schedule of pre-training: noise, and no second image


def build(sam: object, options: Pretraining, seed: int) -> Latent:
    """An untrained model; `pretrain` fits the codec."""
    channels, unet = options.codec_channels, options.unet
    codec = LinearAutoencoder(
        latent_channels=channels,
        block_out_channels=tuple(3 * 4**level for level in range(options.halvings + 1)),
        sample_size=options.side,
    )
    text = torch.zeros(*unet.text)
    return Latent(small_unet(unet, channels, options.side >> options.halvings, seed), codec, 1.0, text, text.clone())


def small_unet(options: SmallUnet, channels: int, size: int, seed: int) -> Any:
    """A `UNet2DConditionModel` with fresh weights; leaves torch's global generator as it was."""
    from diffusers import UNet2DConditionModel

    below = len(options.channels) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(options.channels),
            layers_per_block=options.layers,
            down_block_types=("CrossAttnDownBlock2D",) + ("DownBlock2D",) * below,
            up_block_types=("UpBlock2D",) * below + ("CrossAttnUpBlock2D",),
            cross_attention_dim=options.text[1],
            attention_head_dim=options.head_dim,
            norm_num_groups=options.groups,
        )


def load_stable_diffusion(options: StableDiffusion) -> Latent:
    """Published U-Net and autoencoder with the text encoder's states of the empty prompt, which is then dropped."""
    pipe = load_text_to_image(options.manifest)
    with torch.no_grad():
        padded = pipe.encode([""])[0]
        text = pipe.encode(torch.tensor([pipe.tokenizer("")["input_ids"]]))[0]
    return Latent(pipe.unet, pipe.vae, float(pipe.vae.config.scaling_factor), text, padded)


def pretrain(model: Latent, base: object, options: Pretraining, context: Context) -> None:
    """Fit the codec to images and painted masks of the training set, then train the U-Net on the images' latents."""
    images, masks = squares(context.source(options.data), options.side)
    fit_codec(model, torch.cat([pictures(images), painted(torch.from_numpy(masks))]), options)
    latents = model.encode(pictures(images).to(context.device))
    model.unet.requires_grad_(True)
    settings = OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)
    context.fit(
        model.unet,
        lambda epoch, generator: Steps(plan_epoch(len(latents), options.batch, options.steps, generator), _draw),
        DenoisingLoss(latents, model.text),
        optimizer=make_optimizer(model.unet.parameters(), settings),
        epochs=1,
        stream="pretrain",
    )
    model.eval()


def fit_codec(model: Latent, seen: Tensor, options: Pretraining) -> None:
    """Principal components of patches of pictures (N, 3, S, S) in [-1, 1]; latents get a standard deviation of one."""
    fitted = fit_autoencoder(seen, options.codec_channels, options.halvings, balance=0.0)
    model.codec.load_state_dict(fitted.state_dict())
    model.scale.fill_(float(fitted.config["scaling_factor"]))


def squares(source: Source, side: int) -> tuple[Array, Array]:
    """All images (N, S, S, 3) uint8 of a source, resized, and where any object of them is, (N, S, S) bool.

    Of a set of classes, images that show none are left out.
    """
    samples = (source[n] for n in range(len(source)) if not isinstance(source, ClassSource) or source.shown[n])
    views = [squared(View(s.image, np.asarray(s.masks.any(0)), s.name), side) for s in samples]
    return np.stack([view.image for view in views]), np.stack([view.mask for view in views])


def pictures(images: Array | Tensor) -> Tensor:
    """Images (..., S, S, 3) uint8 as (..., 3, S, S) float32 in [-1, 1]."""
    return torch.as_tensor(images).movedim(-1, -3).float() / 127.5 - 1


def _draw(step: Step) -> dict[str, Tensor]:
    return {"rows": torch.from_numpy(step.positions), "seeds": seeds_of(step)}


def seeds_of(step: Step) -> Tensor:
    """(B,) int64: a seed of everything random about each sample, so that a batch may be cut anywhere."""
    return torch.from_numpy(step.rng.integers(2**62, size=len(step.positions)))


@dataclass(frozen=True)
class DenoisingLoss:
    """Mean squared error of v, at times drawn from all with equal probability, without condition."""

    latents: Tensor
    text: Tensor

    def __call__(self, net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = self.latents[batch["rows"].to(self.latents.device)]
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"].tolist()]
        times = torch.cat([drawn_times(COSINE, 1, generator) for generator in generators]).to(x.device)
        e = torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators]).to(x)
        a = signal(COSINE).to(x.device)[times][:, None, None, None]
        output = net(mixed(a, x, e), times, self.text.expand(len(x), -1, -1), return_dict=False)[0]
        return F.mse_loss(output.float(), velocity(a, x, e))
