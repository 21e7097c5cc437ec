"""Rows that erase nothing here: the model itself, the authors' erased weights, a model that never saw the class."""

from typing import Any, Literal

from torch import nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.options import Options


class OriginalOptions(Options):
    """The model before anything is erased."""


class ReleasedOptions(Options):
    """checkpoint: manifest of one file of erased weights; part: whose they are, by default as the file's name says."""

    checkpoint: str
    part: Literal["unet", "text_encoder"] | None = None


class RetrainOptions(Options):
    """A class-conditional model trained without the forgotten class."""


def original(unet: nn.Module, concept: Concept, options: OriginalOptions, context: EraseContext) -> Erased:
    """Nothing is erased."""
    return Erased(unet)


def released(unet: nn.Module, concept: Concept, options: ReleasedOptions, context: EraseContext) -> Erased:
    """The weights are loaded where the model is (`shared.diffusion.victim.load_erased`)."""
    return Erased(unet)


def retrain(unet: nn.Module, concept: Any, options: RetrainOptions, context: EraseContext) -> Erased:
    """The stage `retrained` is the model."""
    return Erased(unet)
