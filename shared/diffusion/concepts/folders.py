"""Images of folders, as a model takes them: shorter side to a size, the centre of it, [0, 1]."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared.errors import DataError
from shared.segmentation.pictures import read_image

SUFFIXES = {".jpg", ".jpeg", ".png"}


def image_files(folder: Path, first: int | None = None) -> list[Path]:
    """Image files of a folder by name, the `first` so many. Raises DataError for a folder without any."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; is the data set in its public layout?")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{folder}: holds no image")
    return found[:first]


def image_batches(files: Sequence[Path], size: int, batch: int) -> Iterator[Tensor]:
    """Batches (B, 3, size, size) in [0, 1]: bicubic to `size` at the shorter side, then the centre."""
    for start in range(0, len(files), batch):
        yield torch.stack([_square(path, size) for path in files[start : start + batch]])


def _square(path: Path, size: int) -> Tensor:
    from PIL import Image

    picture = Image.fromarray(read_image(path))
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
