"""Class-conditional diffusion of images: training, and drawing with classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from shared.diffusion.options import NoiseSchedule, SampleOptions
from shared.diffusion.sample import (
    ClassifierFree,
    PromptOnly,
    ddim_scheduler,
    denoise,
    generators,
    initial_noise,
    make_scheduler,
)
from shared.diffusion.train import train_denoiser
from shared.diffusion.zoo.class_unet import ClassUnet
from shared.diffusion.zoo.options import ClassDiffusionRecipe
from shared.gpu.precision import precision_for
from shared.training.checkpoint import Checkpoint
from shared.training.ema import Ema
from shared.training.loop import FitResult
from shared.training.seeds import stream, stream_seed


@dataclass
class ClassDiffusion:
    """A `ClassUnet` and its noise schedule. average: the same network with averaged weights, if training kept it:
    images are drawn from it, while unlearning starts from the raw weights."""

    unet: ClassUnet
    schedule: NoiseSchedule
    average: ClassUnet | None = None

    @property
    def null(self) -> Tensor:
        """The label that stands for no class."""
        return torch.tensor(self.unet.config.num_classes, device=self.unet.null.device)

    @torch.no_grad()
    def draw(
        self, labels: Tensor, seeds: Sequence[int], options: SampleOptions, unet: ClassUnet | None = None
    ) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of classes (N,), one for each seed, from `unet` (default: the average, or the
        raw weights where there is none).

        options.guidance: 1 + w in the notation of classifier-free guidance. The predicted image is clipped to its
        range at every step.
        """
        unet = unet or self.average or self.unet
        unet.eval()
        shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        guidance = PromptOnly() if options.guidance == 1 else ClassifierFree(options.guidance)
        branches = guidance.branches(self.null, labels)
        base = ddim_scheduler(
            self.schedule, clip_sample=True, steps_offset=0, set_alpha_to_one=True, timestep_spacing="trailing"
        )
        parts = []
        for start in range(0, len(labels), options.batch):
            rows = slice(start, start + options.batch)
            sources = generators(seeds[rows])
            noise = initial_noise(shape, sources).to(labels.device)
            scheduler = make_scheduler(base, options.scheduler)
            settings: dict[str, Any] = {"eta": options.eta, "sources": sources}
            parts.append(denoise(unet, branches[:, rows], noise, scheduler, guidance, options.num_steps, **settings))
        images = torch.cat(parts) if parts else torch.empty(0, *shape, device=labels.device)
        return (images / 2 + 0.5).clamp(0, 1)

    def save(self, folder: Path) -> None:
        """Write `unet/` and, where there is one, `average/`."""
        self.unet.save_pretrained(folder / "unet")
        if self.average is not None:
            self.average.save_pretrained(folder / "average")


def build_class_unet(recipe: ClassDiffusionRecipe, images: Tensor, num_classes: int, seed: int) -> ClassUnet:
    """Untrained network for images (N, C, H, W); leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "class U-Net"))
        unet = ClassUnet(
            sample_size=images.shape[-1],
            in_channels=images.shape[1],
            num_classes=num_classes,
            **recipe.unet.model_dump(),
        )
    return cast(ClassUnet, unet)


def train_class_diffusion(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: ClassDiffusionRecipe,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[ClassDiffusion, FitResult]:
    """Train a model of images (N, C, H, W) uint8 and labels (N,) on their device."""
    unet = build_class_unet(recipe, images, num_classes, seed)
    cast(torch.nn.Module, unet).to(images.device)
    model = ClassDiffusion(unet, recipe.noise)
    average = Ema(unet, recipe.train.ema) if recipe.train.ema is not None else None
    if average is not None:
        precision_for(images.device).arrange(average.model)
    result = train_denoiser(
        unet,
        images.float() / 127.5 - 1,
        labels,
        model.null,
        recipe.train,
        recipe.noise,
        generator=stream(seed, "class diffusion batches"),
        ema=average,
        checkpoint=checkpoint,
        predict=lambda network, noisy, timesteps, classes: network(noisy, timesteps, classes),
        description="class diffusion",
    )
    unet.eval().requires_grad_(False)
    model.average = cast(ClassUnet, average.model) if average is not None else None
    return model, result


def load_class_diffusion(folder: Path, schedule: NoiseSchedule, device: torch.device | str = "cpu") -> ClassDiffusion:
    """What `ClassDiffusion.save` wrote, frozen."""

    def read(name: str) -> ClassUnet:
        unet: Any = ClassUnet.from_pretrained(folder / name, local_files_only=True)
        precision_for(torch.device(device)).arrange(unet.to(device).eval().requires_grad_(False))
        return cast(ClassUnet, unet)

    return ClassDiffusion(read("unet"), schedule, read("average") if (folder / "average").is_dir() else None)
