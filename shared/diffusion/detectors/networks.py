"""Classifiers: any network with its own preprocessing, those of transformers and torchvision, and the small world's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import ConfigError, DataError, first_line, nearest


class NetworkDetector:
    """Class probabilities of a network.

    logits: prepared images -> (B, C); prepare: images (B, 3, H, W) in [0, 1] -> the network's input.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        classes: Sequence[str],
        prepare: Callable[[Tensor], Tensor],
        batch: int = 64,
    ) -> None:
        self.classes = list(classes)
        self._logits, self._prepare, self._batch = logits, prepare, batch

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(N, C), rows sum to 1."""
        if not len(images):
            return torch.empty(0, len(self.classes), device=images.device)
        return torch.cat([self._logits(self._prepare(part)).float().softmax(1) for part in images.split(self._batch)])


def as_bytes(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8, as an image file holds them: detectors see what was saved."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def shapes_detector(folder: Path, head: str, batch: int, device: torch.device | str) -> NetworkDetector:
    """One head of the small world's classifier. Raises ConfigError for an unknown head."""
    from shared.diffusion.zoo.classifier import ShapeClassifier

    model: Any = ShapeClassifier.from_pretrained(folder, local_files_only=True)
    heads = dict(model.config.heads)
    if head not in heads:
        raise ConfigError(f"'{head}' is no head of the classifier{nearest(head, list(heads))}")
    model = model.to(device).eval().requires_grad_(False)
    return NetworkDetector(lambda images: model(images)[head], heads[head], lambda images: images, batch)


def transformers_detector(folder: Path, batch: int, device: torch.device | str) -> NetworkDetector:
    """An image classification model and its image processor, from a folder of `save_pretrained`."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no image classification model can be read ({first_line(error)})") from None
    model = model.to(device).eval().requires_grad_(False)
    labels = model.config.id2label
    classes = [labels[index] for index in range(len(labels))]

    def prepare(images: Tensor) -> Tensor:
        pixels: Tensor = processor(images=list(as_bytes(images).cpu()), return_tensors="pt")["pixel_values"]
        return pixels.to(device)

    return NetworkDetector(lambda pixels: model(pixel_values=pixels).logits, classes, prepare, batch)


def torchvision_detector(file: Path, architecture: str, batch: int, device: torch.device | str) -> NetworkDetector:
    """A classification network of torchvision with one of its published weights, from their file."""
    from torchvision.models import get_model, get_weight

    from shared.data.checkpoints import load_checkpoint

    try:
        weights = get_weight(architecture)
    except (ValueError, KeyError, AttributeError):
        raise ConfigError(f"architecture: torchvision has no weights '{architecture}'") from None
    model: nn.Module = get_model(architecture.partition("_Weights")[0].lower())
    try:
        model.load_state_dict(load_checkpoint(file))
    except RuntimeError as error:
        raise DataError(f"{file}: not the weights of {architecture} ({first_line(error)})") from None
    model = model.to(device).eval().requires_grad_(False)
    transform = weights.transforms()
    return NetworkDetector(model, weights.meta["categories"], lambda images: transform(as_bytes(images)), batch)
