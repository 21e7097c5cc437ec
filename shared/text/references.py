"""Rows that unlearn nothing: models to compare with. Torch-free."""

from collections.abc import Mapping
from pathlib import Path

from shared.options import Options


def pretrained(stages: Mapping[str, Path], options: Options) -> Path:
    """The model before it saw any fictitious author."""
    return stages["base"]


def finetuned(stages: Mapping[str, Path], options: Options) -> Path:
    """The target model: fine-tuned on everything, nothing forgotten."""
    return stages["target"]


def retain(stages: Mapping[str, Path], options: Options) -> Path:
    """Fine-tuned on the retain split alone: the gold standard. Its forget quality against its own log is 1."""
    return stages["retain"]


def second_retain(stages: Mapping[str, Path], options: Options) -> Path:
    """Another retain model, of another seed: what forget quality says of two models that both never saw the rows."""
    return stages["second_retain"]
