"""Recipes of the zoo's models; torch-free. The defaults are the world "shapes x styles", as all its papers share it."""

from typing import Annotated, Literal

from pydantic import Field

from shared.diffusion.options import DiffusionRecipe, NoiseSchedule
from shared.options import Count, Fraction, NonNegative, Options, Positive

Widths = Annotated[tuple[Count, ...], Field(strict=False)]


class ClassifierRecipe(Options):
    """A `ShapeClassifier` and its training: Adam; noise: largest standard deviation of noise on the images."""

    kind: Literal["small"] = "small"
    widths: Widths = (24, 48, 64)
    num_features: Count = 96
    epochs: Count = 7
    batch: Count = 96
    lr: Positive = 2e-3
    noise: NonNegative = 0.2


class FineTunedRecipe(Options):
    """A network of torchvision with published weights (manifest `checkpoint`) and a new last layer, tuned with Adam on
    images enlarged to `size` pixels, mirrored at random; head_lr: rate of the new layer."""

    kind: Literal["torchvision"]
    architecture: Literal["resnet18", "resnet34", "resnet50"] = "resnet34"
    checkpoint: str = "torchvision_resnet34"
    size: Count = 224
    epochs: Count = 10
    batch: Count = 128
    lr: Positive = 1e-5
    head_lr: Positive = 1e-4
    weight_decay: NonNegative = 5e-4


class TextTowerRecipe(Options):
    """A small CLIP and its contrastive training: Adam, 10 % warm-up, cosine.

    token_std: of the token embeddings at the start; with CLIP's own 0.02 the words are lost against the positions.
    """

    width: Count = 64
    layers: Count = 2
    heads: Count = 4
    patch: Count = 8
    token_std: Positive = 0.5
    steps: Count = 400
    batch: Count = 64
    lr: Positive = 2e-3


class UnetShape(Options):
    """Sizes of a `UNet2DConditionModel`: the last block has cross attention, the ones above it have none.

    heads: of every attention (diffusers calls it attention_head_dim).
    """

    widths: Widths = (32, 64)
    layers: Count = 1
    heads: Count = 8
    groups: Count = 8


class WorldRecipe(Options):
    """The text-to-image model of the world: linear autoencoder, text tower, U-Net.

    halvings: of the image by the autoencoder; balance: of its components' widths (`fit_autoencoder`).
    """

    latent_channels: Count = 12
    halvings: Count = 2
    balance: Fraction = 0.5
    text: TextTowerRecipe = TextTowerRecipe()
    unet: UnetShape = UnetShape()
    noise: NoiseSchedule = NoiseSchedule()
    train: DiffusionRecipe = DiffusionRecipe(steps=1000, snr_gamma=5.0)


class ClassUnetShape(Options):
    """Sizes of a `ClassUnet`; the defaults are those of the CIFAR-10 model, 38,632,323 parameters."""

    channels: Count = 128
    multipliers: Widths = (1, 2, 2, 2)
    num_blocks: Count = 2
    attention: Widths = (16,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    groups: Count = 32


class ClassDiffusionRecipe(Options):
    """A class-conditional model of images and its training; the defaults are those of CIFAR-10."""

    unet: ClassUnetShape = ClassUnetShape()
    noise: NoiseSchedule = NoiseSchedule(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    train: DiffusionRecipe = DiffusionRecipe(
        steps=800_000,
        batch=128,
        lr=2e-4,
        weight_decay=0.0,
        decay="constant",
        warmup=0.0,
        sum_pixels=True,
        timesteps="antithetic",
        flip=True,
        ema=0.9999,
    )
