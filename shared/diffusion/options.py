"""Typed settings of the diffusion track; torch-free, so that planning can read them."""

from typing import Annotated, Literal

from pydantic import Field

from shared.options import Count, Fraction, NonNegative, Options, Positive

# Which parameters train; `subsets` says what each name means.
UnetSubset = Literal["all", "cross_attention", "self_attention", "key_value", "non_cross_attention", "no_time"]
Scheduler = Literal["own", "ddim", "pndm", "lms", "ddpm"]


class NoiseSchedule(Options):
    """Variances of the forward process, as diffusers names them.

    beta_schedule: "scaled_linear" is linear in the square root (Stable Diffusion), "linear" DDPM's own.
    """

    num_train_timesteps: Count = 1000
    beta_start: Positive = 0.00085
    beta_end: Positive = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"


class SampleOptions(Options):
    """How images are drawn.

    scheduler: "own" is that of the model's folder; num_steps: denoising steps; guidance: scale s of
    eps(null) + s * (eps(prompt) - eps(null)), where 1 needs the prompt's branch alone; eta: noise of DDIM's steps, 0 is
    deterministic, 1 ancestral; batch: prompts per call of the U-Net.
    """

    scheduler: Scheduler = "own"
    num_steps: Count = 50
    guidance: NonNegative = 7.5
    eta: Fraction = 0.0
    batch: Count = 64


class DiffusionRecipe(Options):
    """Training of a noise predictor on the simple loss.

    batch: samples of a step, drawn with replacement; lr: highest rate, reached after the share `warmup` of the steps
    and then held ("constant") or lowered to 0 ("cosine"); condition_dropout: share of samples that learn the empty
    condition; clip: largest norm of the gradient; snr_gamma: bound on the signal-to-noise ratio in the loss's weights,
    None for equal weights; sum_pixels: squares are summed over a sample's entries, not averaged; timesteps:
    "antithetic" draws t and T - 1 - t in pairs; flip: mirror samples left-right with probability 1/2; ema: decay of an
    average of the weights, None for no average.
    """

    steps: Count
    batch: Count = 40
    lr: Positive = 2.5e-3
    weight_decay: NonNegative = 0.01
    decay: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    condition_dropout: Fraction = 0.1
    clip: Positive | None = 1.0
    snr_gamma: Positive | None = None
    sum_pixels: bool = False
    timesteps: Literal["uniform", "antithetic"] = "uniform"
    flip: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
