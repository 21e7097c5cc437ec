"""What the options of trained erasers share. Torch-free: read at plan time."""

from typing import Annotated, Literal

from pydantic import Field

from shared.options import Count, NonNegative, Options, Positive

# Where a relabelled image's other prompt comes from; see `RelabelOptions`.
Anchors = Literal["concept", "retain"]


class EraserOptions(Options):
    """Base of all erasers' options."""

    @property
    def in_weights(self) -> bool:
        """Whether the erased model is its changed weights alone and can be stored; else every run makes it."""
        return True


class AdamOptions(EraserOptions):
    """Training with Adam (decay in the gradient) or AdamW at a rate of `lr`. batch: images of one step."""

    lr: Positive
    batch: Count
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: NonNegative = 0.0


class IterationOptions(AdamOptions):
    """Trained for a number of optimiser steps."""

    iterations: Count


class InversionOptions(IterationOptions):
    """iterations, lr: those of UnlearnCanvas, which inverts 20 images of a concept."""

    lr: Positive = 1e-4
    batch: Count = 1
    iterations: Count = 500


class DrawOptions(IterationOptions):
    """Trained on half-finished drawings of the student itself (`draws.py`).

    draw_steps: n, the DDIM steps of a whole drawing; start_guidance: its classifier-free guidance.
    esd_no_stop: the released code of UnlearnCanvas never stops the drawing, so that the training time and the noise
    in the image have nothing to do with each other; True only to repeat its numbers.
    """

    draw_steps: Annotated[int, Field(ge=2)] = 50
    start_guidance: NonNegative = 3.0
    esd_no_stop: bool = False


class RelabelOptions(AdamOptions):
    """Passes over the concept's images, each batch with a retain batch of its size.

    anchors: what the concept's images are to be predicted as. "concept": each prompt's own anchor; "retain": the
    prompts of the retain batch drawn in the same step (released code of UnlearnCanvas, where the object's word need not
    match the image).
    """

    epochs: Count
    anchors: Anchors = "concept"
