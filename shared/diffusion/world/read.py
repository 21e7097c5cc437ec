"""The generated data sets of this track, read from their pulled folders onto a device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared.errors import DataError


@dataclass(frozen=True)
class WorldPart:
    """images (N, 3, 32, 32) uint8; labels (N, 3): object, style, colour; captions: one an image."""

    images: Tensor
    labels: Tensor
    captions: list[str]


def read_world(folder: Path, part: str = "train", device: torch.device | str = "cpu") -> WorldPart:
    """Part "train" or "test" of the data set shapes_styles."""
    images, labels = _arrays(folder, part, device)
    path = folder / f"{part}_captions.txt"
    captions = path.read_text(encoding="utf-8").splitlines()
    if len(captions) != len(images):
        raise DataError(f"{path}: {len(captions)} captions for {len(images)} images; delete {folder} and pull again")
    return WorldPart(images, labels, captions)


def read_grey_shapes(folder: Path, part: str = "train", device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Images (N, 1, 12, 12) uint8 and labels (N,) of part "train" or "test" of the data set grey_shapes."""
    return _arrays(folder, part, device)


def unit(images: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]."""
    return images.float() / 255


def _arrays(folder: Path, part: str, device: torch.device | str) -> tuple[Tensor, Tensor]:
    try:
        images = np.load(folder / f"{part}_images.npy", allow_pickle=False)
        labels = np.load(folder / f"{part}_labels.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no readable part '{part}' ({error}); delete it and pull again") from None
    channels_first = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, 3, 1)))
    return channels_first.to(device), torch.from_numpy(labels).to(device)
