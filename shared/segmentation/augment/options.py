"""Steps of an augmentation, as a list in a configuration; torch-free, so that planning reads it.

    augment: [{kind: rotate90, p: 0.5}, {kind: blur, limit: 10, p: 0.2}]

Names and value ranges are those of the albumentations package where it has the step. p: the probability of a step, for
each image anew. Sides, sizes and shifts are in pixels unless said otherwise.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Positive, Strict


class _Step(Strict):
    p: Fraction = 1.0


class HorizontalFlip(_Step):
    """Mirror left to right."""

    kind: Literal["horizontal_flip"]


class VerticalFlip(_Step):
    """Mirror top to bottom."""

    kind: Literal["vertical_flip"]


class Rotate90(_Step):
    """Turn by 0, 90, 180 or 270 degrees, each with probability 1/4."""

    kind: Literal["rotate90"]


class GridShuffle(_Step):
    """Cut into grid x grid cells and permute those of equal size."""

    kind: Literal["grid_shuffle"]
    grid: Count = 4


class ShiftScale(_Step):
    """Scale about the centre by 1 +- scale, shift by +- shift of each side (fractions); outside is black background."""

    kind: Literal["shift_scale"]
    shift: Fraction = 0.3
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Pad(_Step):
    """Black background at the bottom and right, up to a multiple of `multiple`."""

    kind: Literal["pad"]
    multiple: Count


class RandomCrop(_Step):
    """A random square of `size` pixels; an image must hold it."""

    kind: Literal["random_crop"]
    size: Count


class RandomSizedCrop(_Step):
    """A random square of smallest..largest pixels, resized to `size`; an image must hold the largest."""

    kind: Literal["random_sized_crop"]
    smallest: Count
    largest: Count
    size: Count

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest {self.smallest} is above largest {self.largest}")
        return self


class Elastic(_Step):
    """A random affine map, then smooth random displacements; outside is the mirrored image.

    affine: each of three points, a third of the shorter side from the centre, moves by up to so many pixels. alpha,
    sigma: uniform noise in +-1 is smoothed by a Gaussian of `sigma` pixels and multiplied with alpha.
    """

    kind: Literal["elastic"]
    alpha: NonNegative = 0.5
    sigma: Positive = 25.0
    affine: NonNegative = 15.0


class ColorJitter(_Step):
    """Factors 1 +- brightness, contrast, saturation and a turn of the hue by +- hue (of 1), in random order."""

    kind: Literal["color_jitter"]
    brightness: Fraction = 0.25
    contrast: Fraction = 0.25
    saturation: Fraction = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class Downscale(_Step):
    """Shrink to `scale` of the size and enlarge again, both by nearest neighbours."""

    kind: Literal["downscale"]
    scale: Annotated[float, Field(gt=0, le=1)] = 0.5


class Blur(_Step):
    """Mean over a square of 3, 5, ... at most `limit` pixels a side."""

    kind: Literal["blur"]
    limit: Annotated[int, Field(ge=3)] = 10


class GaussianNoise(_Step):
    """Noise of a variance uniform in 0..variance, on the scale 0..255, independent in all pixels and channels."""

    kind: Literal["gaussian_noise"]
    variance: NonNegative = 50.0


class ZoomBlur(_Step):
    """Mean of the image and of its central enlargements 1, 1 + step, ... below a factor uniform in 1..max_factor.

    The step is uniform in `step`.
    """

    kind: Literal["zoom_blur"]
    max_factor: Annotated[float, Field(ge=1)] = 1.05
    step: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.01, 0.03)


class Superpixels(_Step):
    """Each SLIC segment of about `segments` becomes its mean colour with probability `replace`.

    If any is replaced, segments are computed on, and the result is enlarged from, a copy of at most `max_size` a side.
    """

    kind: Literal["superpixels"]
    replace: Fraction = 0.1
    segments: Count = 200
    max_size: Count = 128


Step = Annotated[
    HorizontalFlip
    | VerticalFlip
    | Rotate90
    | GridShuffle
    | ShiftScale
    | Pad
    | RandomCrop
    | RandomSizedCrop
    | Elastic
    | ColorJitter
    | Downscale
    | Blur
    | GaussianNoise
    | ZoomBlur
    | Superpixels,
    Field(discriminator="kind"),
]
