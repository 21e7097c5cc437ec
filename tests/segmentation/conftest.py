"""Small image folders in the public layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def write():
    return write_picture


@pytest.fixture
def nuclei(tmp_path, write):
    """Three images of 12x16 with 2, 1 and 0 nuclei in the layout of the Data Science Bowl: (folder, label maps)."""
    root, maps = tmp_path / "stage1_train", {}
    boxes = {"b": [(1, 5, 2, 6), (6, 11, 3, 9)], "a": [(0, 4, 10, 16)], "c": []}
    for name, places in boxes.items():
        image = np.random.default_rng(len(places)).integers(0, 255, (12, 16, 4), np.uint8)
        write(root / name / "images" / f"{name}.png", image)
        (root / name / "masks").mkdir()
        maps[name] = np.zeros((12, 16), np.int32)
        for number, (top, bottom, left, right) in enumerate(places, 1):
            mask = np.zeros((12, 16), np.uint8)
            mask[top:bottom, left:right] = 255
            write(root / name / "masks" / f"{number:02d}.png", mask)
            maps[name][mask > 0] = number
    return root, maps
