"""Q16 (Schramowski et al., FAccT 2022, arXiv:2202.06675): CLIP's image features against two learned prompt vectors."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from shared.diffusion.detectors.networks import NetworkDetector, as_bytes
from shared.errors import DataError, first_line

CLASSES = ("benign", "harmful")
_SCALE = 100.0


def q16_detector(clip: Path, prompts: Path, batch: int, device: torch.device | str) -> NetworkDetector:
    """Probabilities of (benign, harmful): softmax of 100 cosines. clip: folder of a CLIP model; prompts: file of the
    two vectors."""
    from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

    try:
        processor = AutoImageProcessor.from_pretrained(clip, local_files_only=True)
        model: Any = CLIPVisionModelWithProjection.from_pretrained(clip, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{clip}: no CLIP model can be read ({first_line(error)})") from None
    model = model.to(device).eval().requires_grad_(False)
    vectors = F.normalize(read_prompts(prompts).to(device), dim=-1)
    if vectors.shape[1] != model.config.projection_dim:
        raise DataError(f"{prompts}: vectors of {vectors.shape[1]} numbers, CLIP's have {model.config.projection_dim}")

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        features = F.normalize(model(pixel_values=pixels).image_embeds, dim=-1)
        return _SCALE * features @ vectors.T

    def prepare(images: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = processor(images=list(as_bytes(images).cpu()), return_tensors="pt")["pixel_values"]
        return pixels.to(device)

    return NetworkDetector(logits, CLASSES, prepare, batch)


def read_prompts(path: Path) -> torch.Tensor:
    """(2, d) float32 from the published pickle of an array (and of nothing else), or from a .npy file."""
    try:
        content = path.read_bytes()
        if path.suffix == ".npy":
            array = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            array = _ArraysOnly(io.BytesIO(content)).load()
        vectors = torch.from_numpy(np.asarray(array, dtype=np.float32).copy())
    except (OSError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: no prompt vectors can be read ({first_line(error)})") from None
    if vectors.ndim != 2 or len(vectors) != len(CLASSES):
        raise DataError(f"{path}: an array of shape {tuple(vectors.shape)}, expected two vectors")
    return vectors


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays, and refuses everything that could run code."""

    _ALLOWED = {
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """The class, if it is one of an array's."""
        module = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which could run code; refused")
        return super().find_class(module, name)
