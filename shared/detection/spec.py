"""How a detector is evaluated; torch-free, so that planning reads it."""

from typing import Annotated, Literal

from pydantic import Field

from shared.detection.options import InputSize, PixelOptions, SameSize
from shared.options import Count, Fraction, Strict
from shared.segmentation.data import DataSpec, manifests_of


class DetectionSpec(Strict):
    """Boxes and masks against the true ones, by COCO's average precision.

    classes: names, in the order of the numbers. size, pixels: how images enter the model. batch: images of one call.
    draws: how often a model that samples its tokens at test is asked; metrics are means over the draws. shown: score
    from which the report's pictures show a detection; of detectors that learned little, few reach one half.
    """

    kind: Literal["coco"] = "coco"
    data: DataSpec
    classes: Annotated[list[str], Field(min_length=1)]
    size: InputSize = SameSize()
    pixels: PixelOptions = PixelOptions()
    batch: Count = 8
    draws: Count = 1
    shown: Fraction = 0.5

    def manifests(self) -> list[str]:
        """Data manifests that the evaluation reads."""
        return manifests_of(self.data)
