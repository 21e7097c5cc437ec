"""Training of noise predictors on the simple loss of diffusion models, and the batches it takes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.diffusion.options import DiffusionRecipe, NoiseSchedule
from shared.training.checkpoint import Checkpoint
from shared.training.ema import Ema
from shared.training.loop import FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule


class NoisyBatch(NamedTuple):
    """clean, noise (B, C, h, w); timesteps (B,) int64 from 0; conditions (B, ...): prompt states, or labels."""

    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    conditions: Tensor


def alphas_cumprod(schedule: NoiseSchedule) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s), (T,) float32."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    products: Tensor = DDPMScheduler(**schedule.model_dump()).alphas_cumprod
    return products


def add_noise(clean: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e; abar (B,) of the samples' timesteps."""
    abar = abar.to(clean).view(-1, *[1] * (clean.ndim - 1))
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


def antithetic_times(num: int, total: int, generator: torch.Generator) -> Tensor:
    """(num,) int64: t uniform for the first half (rounded up, plus one), then total - 1 - t."""
    first = torch.randint(0, total, (num // 2 + 1,), generator=generator)
    return torch.cat([first, total - 1 - first])[:num]


def draw_timesteps(num: int, recipe: DiffusionRecipe, total: int, generator: torch.Generator) -> Tensor:
    """Timesteps (num,) of a batch: independent, or antithetic pairs t, T - 1 - t."""
    if recipe.timesteps == "uniform":
        return torch.randint(0, total, (num,), generator=generator)
    return antithetic_times(num, total, generator)


class NoisyBatches(Iterator[NoisyBatch]):
    """A run's batches, samples drawn with replacement; every random number comes from one CPU generator.

    clean (N, C, h, w) and conditions (N, ...) live on the device of the model; null (...): the empty condition, which
    takes the place of a sample's own with the recipe's probability.
    """

    def __init__(
        self,
        clean: Tensor,
        conditions: Tensor,
        null: Tensor,
        recipe: DiffusionRecipe,
        num_timesteps: int,
        generator: torch.Generator,
    ) -> None:
        self._clean, self._conditions, self._null = clean, conditions, null
        self._recipe, self._num_timesteps, self._generator = recipe, num_timesteps, generator
        self._left = recipe.steps

    def __len__(self) -> int:
        return self._recipe.steps

    def __next__(self) -> NoisyBatch:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        recipe, generator, device = self._recipe, self._generator, self._clean.device
        num = recipe.batch
        rows = torch.randint(0, len(self._clean), (num,), generator=generator)
        noise = torch.randn(num, *self._clean.shape[1:], generator=generator)
        timesteps = draw_timesteps(num, recipe, self._num_timesteps, generator)
        dropped = torch.rand(num, generator=generator) < recipe.condition_dropout
        mirrored = torch.rand(num, generator=generator) < 0.5 if recipe.flip else None
        clean, conditions = self._clean[rows.to(device)], self._conditions[rows.to(device)]
        if mirrored is not None:
            clean = torch.where(mirrored.to(device)[:, None, None, None], clean.flip(3), clean)
        shape = (-1, *[1] * (conditions.ndim - 1))
        conditions = torch.where(dropped.to(device).view(shape), self._null, conditions)
        return NoisyBatch(clean, noise.to(device), timesteps.to(device), conditions)


# (network, noisy samples, timesteps, conditions) -> predicted noise
PredictWith = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def unet_prediction(unet: nn.Module, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
    """The noise that a U-Net of diffusers predicts."""
    predicted: Tensor = unet(noisy, timesteps, encoder_hidden_states=states, return_dict=False)[0]
    return predicted


def simple_loss(
    abar: Tensor,
    snr_gamma: float | None = None,
    *,
    sum_pixels: bool = False,
    predict: PredictWith = unet_prediction,
) -> Callable[[nn.Module, NoisyBatch], Tensor]:
    """loss(model, batch): mean over the batch of ||e - eps_theta(x_t, t, c)||^2 (arXiv:2006.11239, eq. 14).

    abar: of all T timesteps, on the device. The square is the mean over a sample's entries, or their sum
    (`sum_pixels`, as DDPM's code has it). snr_gamma: weight min(SNR, gamma) / SNR of a timestep, SNR = abar / (1 -
    abar) (arXiv:2303.09556): late, almost clean steps no longer outvote those that decide what the image shows.
    """

    def loss(model: nn.Module, batch: NoisyBatch) -> Tensor:
        of_sample = abar[batch.timesteps]
        noisy = add_noise(batch.clean, batch.noise, of_sample)
        predicted = predict(model, noisy, batch.timesteps, batch.conditions)
        square = (predicted.float() - batch.noise).square().flatten(1)
        each = square.sum(1) if sum_pixels else square.mean(1)
        if snr_gamma is not None:
            snr = of_sample / (1 - of_sample)
            each = each * (snr.clamp(max=snr_gamma) / snr)
        return each.mean()

    return loss


def train_denoiser(
    model: nn.Module,
    clean: Tensor,
    conditions: Tensor,
    null: Tensor,
    recipe: DiffusionRecipe,
    schedule: NoiseSchedule,
    *,
    generator: torch.Generator,
    ema: Ema | None = None,
    checkpoint: Checkpoint | None = None,
    predict: PredictWith = unet_prediction,
    description: str = "denoiser",
) -> FitResult:
    """Train `model`, which lives on the device of the tensors, in place; AdamW, warm-up and cosine."""
    options = OptimizerOptions(kind="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    abar = alphas_cumprod(schedule).to(clean.device)

    def batches(_: int, source: torch.Generator) -> Iterable[Any]:
        return NoisyBatches(clean, conditions, null, recipe, schedule.num_train_timesteps, source)

    return fit(
        model,
        batches,
        simple_loss(abar, recipe.snr_gamma, sum_pixels=recipe.sum_pixels, predict=predict),
        optimizer=make_optimizer(model.parameters(), options),
        epochs=1,
        generator=generator,
        schedule=Schedule(ScheduleOptions(kind=recipe.decay, unit="step", warmup=recipe.warmup), 1),
        max_grad_norm=recipe.clip,
        ema=ema,
        checkpoint=checkpoint,
        description=description,
    )
