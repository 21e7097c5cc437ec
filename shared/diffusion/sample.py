"""Drawing from a diffusion model: seeded, in batches, every condition of a step in one call of the network."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from shared.diffusion.options import NoiseSchedule, Scheduler

# (latents (K * B, C, h, w), timestep, conditions (K * B, ...)) -> predicted noise (K * B, C, h, w)
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """Where a denoising run is. index counts from 0 to num_steps - 1; timestep from T - 1 (noise) to 0 (image)."""

    index: int
    num_steps: int
    timestep: int


class Guidance(Protocol):
    """How the predictions under K conditions become one."""

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """Conditions of the network's calls (K, N, ...): from the empty one (...) and those of the prompts (N, ...)."""

    def start(self, rows: slice) -> "Guidance":
        """The guidance of a run over some of the N prompts, without memory of another run."""

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Predictions (K, B, C, h, w) to one (B, C, h, w)."""


class PromptOnly:
    """No guidance: eps(prompt)."""

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """The prompts alone."""
        return conditions[None]

    def start(self, rows: slice) -> "PromptOnly":
        """Itself."""
        return self

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """The only prediction."""
        return predictions[0]


class ClassifierFree:
    """eps(null) + scale * (eps(prompt) - eps(null)) (arXiv:2207.12598, whose w is scale - 1).

    scale: one number, or one for each of the N prompts.
    """

    def __init__(self, scale: float | Sequence[float]) -> None:
        self._scale = torch.as_tensor(scale, dtype=torch.float32)

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """(2, N, ...): the empty condition, then the prompts."""
        return torch.stack([null.expand_as(conditions), conditions])

    def start(self, rows: slice) -> "ClassifierFree":
        """The scales of these prompts."""
        return self if self._scale.ndim == 0 else ClassifierFree(self._scale[rows].tolist())

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Extrapolate from the first prediction through the second."""
        scale = self._scale.to(predictions)
        if scale.ndim:
            scale = scale.view(-1, *[1] * (predictions.ndim - 2))
        return predictions[0] + scale * (predictions[1] - predictions[0])


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator a sample, so that a sample depends on its own seed alone."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def initial_noise(shape: Sequence[int], sources: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise (N, *shape) on the CPU, each sample from its own generator (as diffusers draws it)."""
    draws = [torch.randn(1, *shape, generator=source) for source in sources]
    return torch.cat(draws) if draws else torch.empty(0, *shape)


def make_scheduler(base: Any, kind: Scheduler = "own") -> Any:
    """A fresh scheduler (they have state) of a kind, with the noise schedule of `base`.

    Stable Diffusion's settings are kept: scaled-linear variances, steps_offset 1, no clipping.
    """
    import diffusers

    classes = {
        "ddim": diffusers.DDIMScheduler,
        "pndm": diffusers.PNDMScheduler,
        "lms": diffusers.LMSDiscreteScheduler,
        "ddpm": diffusers.DDPMScheduler,
    }
    cls = type(base) if kind == "own" else classes[kind]
    if cls is diffusers.PNDMScheduler:
        # Plain linear multi-step: without it, Runge-Kutta steps come first, as no Stable Diffusion pipeline has them
        return cls.from_config(base.config, skip_prk_steps=True)
    return cls.from_config(base.config)


def ddim_scheduler(schedule: NoiseSchedule, **settings: Any) -> Any:
    """DDIM over a noise schedule, with Stable Diffusion's settings unless `settings` say otherwise."""
    from diffusers import DDIMScheduler

    stable_diffusion = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**{**schedule.model_dump(), **stable_diffusion, **settings})


def denoise(
    predict: Predict,
    branches: Tensor,
    noise: Tensor,
    scheduler: Any,
    guidance: Guidance,
    num_steps: int,
    *,
    eta: float = 0.0,
    sources: Sequence[torch.Generator] = (),
    until: int | None = None,
) -> Tensor:
    """Latents (B, C, h, w) from standard normal `noise` of that shape, under conditions `branches` (K, B, ...).

    eta: noise of DDIM's steps; sources: a generator a sample, for schedulers that draw noise; until: stop after so many
    of the steps, with what is then a noisy latent. One call of the network a step.
    """
    scheduler.set_timesteps(num_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    num_branches = len(branches)
    conditions = branches.flatten(0, 1)
    accepted = inspect.signature(scheduler.step).parameters
    settings = {"eta": eta, "generator": list(sources) or None}
    settings = {name: value for name, value in settings.items() if name in accepted}
    times = scheduler.timesteps
    values = times.tolist()
    for index, timestep in enumerate(times[:until]):
        scaled = scheduler.scale_model_input(latents, timestep)
        repeated = scaled.repeat(num_branches, *[1] * (scaled.ndim - 1))
        predictions = predict(repeated, timestep, conditions).unflatten(0, (num_branches, len(latents)))
        predicted = guidance(predictions, Step(index, len(values), int(values[index])))
        latents = scheduler.step(predicted, timestep, latents, **settings, return_dict=False)[0]
    return latents
