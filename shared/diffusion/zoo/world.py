"""The text-to-image model of the world "shapes x styles": a Stable Diffusion in small, from the same classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.diffusion.options import SampleOptions
from shared.diffusion.sample import ddim_scheduler
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.train import train_denoiser
from shared.diffusion.world.autoencoder import fit_autoencoder
from shared.diffusion.world.read import read_world, unit
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import HEADS, prompt_grid
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.diffusion.zoo.options import WorldRecipe
from shared.diffusion.zoo.text_tower import build_clip, text_encoder_of, train_clip
from shared.training.checkpoint import Checkpoint
from shared.training.ema import Ema
from shared.training.loop import FitResult
from shared.training.seeds import stream, stream_seed

# name of a training -> where it keeps its state (None: nowhere)
Checkpoints = Callable[[str], Checkpoint | None]


@dataclass
class World:
    """The model, the CLIP that its text tower is from, and what the trainings cost, by name."""

    pipe: TextToImage
    clip: Any
    fits: dict[str, FitResult] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `pipeline/` and `clip/` (model and tokenizer) into a folder."""
        self.pipe.save(folder / "pipeline")
        self.clip.save_pretrained(folder / "clip")
        self.pipe.tokenizer.save_pretrained(folder / "clip")


def make_world(
    data: Path,
    recipe: WorldRecipe,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Checkpoints = lambda name: None,
) -> World:
    """Fit the autoencoder to the training images, train the text tower, freeze it, and train the U-Net on its states.

    data: folder of the data set shapes_styles.
    """
    train, tokenizer = read_world(data, "train", device), world_tokenizer()
    images = unit(train.images)
    ids = tokenizer(train.captions, padding="max_length", return_tensors="pt")["input_ids"].to(device)
    clip = build_clip(recipe.text, tokenizer, images.shape[-1], seed).to(device)
    fits = {"text tower": train_clip(clip, images, ids, recipe.text, seed, checkpoint=checkpoint("text_tower"))}
    vae = fit_autoencoder(images * 2 - 1, recipe.latent_channels, recipe.halvings, recipe.balance)
    unet = build_unet(recipe, images.shape[-1] // vae.patch, seed)
    pipe = TextToImage(unet, vae, text_encoder_of(clip), tokenizer, ddim_scheduler(recipe.noise)).to(device)
    fits["U-Net"] = train_unet(pipe, images, train.captions, recipe, seed, checkpoint("unet"))
    return World(pipe, clip, fits)


def build_unet(recipe: WorldRecipe, latent_size: int, seed: int) -> Any:
    """Untrained `UNet2DConditionModel`; leaves torch's global generator as it was."""
    from diffusers import UNet2DConditionModel

    shape = recipe.unet
    above = len(shape.widths) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "U-Net"))
        return UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=recipe.latent_channels,
            out_channels=recipe.latent_channels,
            block_out_channels=shape.widths,
            layers_per_block=shape.layers,
            down_block_types=("DownBlock2D",) * above + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * above,
            cross_attention_dim=recipe.text.width,
            attention_head_dim=shape.heads,
            norm_num_groups=shape.groups,
        )


def train_unet(
    pipe: TextToImage,
    images: Tensor,
    captions: list[str],
    recipe: WorldRecipe,
    seed: int,
    checkpoint: Checkpoint | None,
) -> FitResult:
    """Train the U-Net in place on latents of images (N, 3, H, W) in [0, 1] under the frozen text tower's states."""
    unique = list(dict.fromkeys(captions))
    with torch.no_grad():
        states = pipe.encode([*unique, ""])
        rows = torch.tensor([unique.index(caption) for caption in captions], device=pipe.device)
        latents = pipe.to_latents(images)
    average = Ema(pipe.unet, recipe.train.ema) if recipe.train.ema is not None else None
    result = train_denoiser(
        pipe.unet,
        latents,
        states[rows],
        states[-1],
        recipe.train,
        recipe.noise,
        generator=stream(seed, "U-Net batches"),
        ema=average,
        checkpoint=checkpoint,
        description="U-Net",
    )
    if average is not None:
        pipe.unet.load_state_dict(average.model.state_dict())
    pipe.unet.eval().requires_grad_(False)
    return result


def drawn_accuracy(
    pipe: TextToImage, classifier: ShapeClassifier, options: SampleOptions, seed: int, words: tuple[int, ...] = (0, 1)
) -> dict[str, float]:
    """Share of drawn images that show the object, style and colour of their prompt: one image for each of the 72
    prompts of the world and each of the objects' `words`."""
    prompts = [entry for word in words for entry in prompt_grid(word)]
    seeds = [stream_seed(seed, f"drawn {index}") for index in range(len(prompts))]
    found = classifier.predict(pipe.generate([prompt for prompt, *_ in prompts], seeds, options))
    accuracy = {}
    for column, (head, names) in enumerate(HEADS.items(), start=1):
        wanted = torch.tensor([names.index(entry[column]) for entry in prompts], device=pipe.device)
        accuracy[head] = float((found[head] == wanted).float().mean())
    return accuracy
