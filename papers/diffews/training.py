"""Fine-tuning of DiffewS on episodes: find in the query what the examples show (arXiv:2410.02369, section 4.1)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.diffews.network import Diffews, Latent, doubled
from papers.diffews.options import FineTuning, Pretraining
from papers.diffews.pictures import target
from papers.diffews.pretraining import build as build_small
from papers.diffews.pretraining import load_stable_diffusion, pictures, seeds_of
from papers.diffews.process import drawn_times, mixed, noise, signal, velocity
from shared.data.pull import pull
from shared.segmentation.context import Context
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.source import EpisodeSource
from shared.segmentation.evaluate.episodes import squared
from shared.segmentation.steps import Step, Steps, plan_epoch
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions


def build(sam: object, options: FineTuning, seed: int) -> Diffews:
    """The network before training: published weights, or a small model's with fresh ones (`fine_tune` puts those of the
    trained small model in their place)."""
    small = isinstance(options.start, Pretraining)
    latent = build_small(sam, options.start, seed) if small else load_stable_diffusion(options.start)  # type: ignore[arg-type]
    if not small and not options.pretrained:
        latent.unet = _fresh(latent.unet, seed)
    return Diffews(latent, options, image_encoder(options) if options.interaction == "tca" else None)


def _fresh(unet: nn.Module, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(unet).from_config(unet.config)  # type: ignore[attr-defined]


def image_encoder(options: FineTuning) -> nn.Module:
    """CLIP's image tower, frozen."""
    from transformers import CLIPVisionModel

    model: nn.Module = CLIPVisionModel.from_pretrained(pull(options.image_encoder), local_files_only=True)
    return model.eval()


def start_from(model: Diffews, base: Latent, options: FineTuning) -> None:
    """Copy the small model that was trained before: its codec, and its U-Net if that is to be kept.

    First convolutions of twice the channels start from its first one.
    """
    unet = base.unet.state_dict()
    for name in ("conv_in_ref", "conv_in"):
        conv = getattr(model.latent.unet, name, None)
        if conv is not None and conv.in_channels == 2 * base.unet.conv_in.in_channels:
            unet |= {f"{name}.{key}": value for key, value in doubled(base.unet.conv_in).state_dict().items()}
    if options.pretrained:
        model.latent.unet.load_state_dict(unet)
    rest = {name: value for name, value in base.state_dict().items() if not name.startswith("unet.")}
    model.latent.load_state_dict(rest, strict=False)


class EpisodeBatch(NamedTuple):
    """B episodes of K examples. images: (B, S, S, 3) uint8, masks: (B, S, S) bool, of the queries; example_images:
    (B, K, S, S, 3), example_masks: (B, K, S, S); seeds: (B,) int64."""

    images: Tensor
    masks: Tensor
    example_images: Tensor
    example_masks: Tensor
    seeds: Tensor


@dataclass(frozen=True)
class EpisodeMaker:
    """Makes the batch of a step: episodes of random classes, all with the same number of examples."""

    episodes: EpisodeSource
    options: FineTuning

    def __call__(self, step: Step) -> EpisodeBatch:
        shots = int(step.rng.integers(1, self.options.shots + 1))
        pairs = [self.episodes.draw(step.rng, shots) for _ in step.positions]
        queries = [squared(pair.query, self.options.side) for pair in pairs]
        shown = [[squared(view, self.options.side) for view in pair.examples] for pair in pairs]
        return EpisodeBatch(
            torch.from_numpy(np.stack([view.image for view in queries])),
            torch.from_numpy(np.stack([view.mask for view in queries])),
            torch.from_numpy(np.stack([[view.image for view in views] for views in shown])),
            torch.from_numpy(np.stack([[view.mask for view in views] for views in shown])),
            seeds_of(step),
        )


@dataclass(frozen=True)
class EpisodeLoss:
    """Mean squared error of v: of minus the painted mask's latent for oi2m.

    Posteriors of the codec are sampled, and times and noise drawn, from the sample's own seed.
    """

    model: Diffews

    def __call__(self, net: nn.Module, batch: EpisodeBatch) -> Tensor:
        model, process, latent = self.model, self.model.options.process, self.model.latent
        device = latent.device
        image, mask = pictures(batch.images.to(device)), batch.masks.to(device)
        generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds.tolist()]
        times = torch.cat([drawn_times(process, 1, generator) for generator in generators]).to(device)
        examples = model.examples(
            pictures(batch.example_images.to(device)),
            batch.example_masks.to(device),
            [generator for generator in generators for _ in range(batch.example_masks.shape[1])],
        )
        z = latent.encode(image, generators)
        x = latent.encode(target(model.options.target, image, mask), generators)
        a = signal(process).to(device)[times][:, None, None, None]
        e = z
        if process.scheme == "mn2m":
            e = torch.stack([self._noise(x, int(time), g) for time, g in zip(times, generators, strict=True)])
        query = mixed(a, x, e)
        query = torch.cat([query, z], 1) if process.scheme == "mn2m" else query
        text = latent.padded_text if model.options.padded_text else latent.text
        return F.mse_loss(net(query, times, examples, text).float(), velocity(a, x, e))

    def _noise(self, x: Tensor, time: int, generator: torch.Generator) -> Tensor:
        # annealed: the less noise a time has, the less of it is coarse (Marigold)
        strength = self.model.options.process.multi_resolution * time / 999
        return noise(x.shape[1:], generator, strength).to(x)


def fine_tune(model: Diffews, base: Latent | None, options: FineTuning, context: Context) -> None:
    """Train the U-Net in place; codec and image encoder stay as they are. base: the small model that it starts from."""
    if base is not None:
        start_from(model, base, options)
    source = class_source(context.data[options.data], context.source(options.data))
    maker = EpisodeMaker(EpisodeSource(source, options.classes, options.shots), options)
    unet = model.latent.unet.requires_grad_(True)
    settings = OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)
    workers = 0 if isinstance(options.start, Pretraining) else context.threads - 1

    def epoch(number: int, generator: torch.Generator) -> Steps[EpisodeBatch]:
        return Steps(plan_epoch(len(maker.episodes), options.batch, options.steps, generator), maker, workers)

    context.fit(
        model,
        epoch,
        EpisodeLoss(model),
        optimizer=make_optimizer(unet.parameters(), settings),
        epochs=1,
        schedule=ScheduleOptions(kind=options.schedule, unit="step", warmup=options.warmup),
        max_grad_norm=options.max_grad_norm,
    )
    model.eval()
