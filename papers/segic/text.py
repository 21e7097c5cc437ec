"""Vectors of texts: CLIP's, or fixed random ones where no language model is at hand."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from papers.segic.options import TextSpec
from shared.data.pull import pull
from shared.errors import DataError, first_line

CLASS = "a photo of a {}"
INSTANCES = "please segment the instances"
UNNAMED = ""  # what a semantic prompt says where no class is named


class TextEncoder(Protocol):
    """Texts to vectors (n, T) float32, on the CPU. weights: what it is made of, and must not change."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...

    def weights(self) -> list[Tensor]: ...


def class_text(name: str | None) -> str:
    """What a semantic prompt says of a class; None: nothing."""
    return UNNAMED if name is None else CLASS.format(name)


class RandomTexts:
    """A standard normal vector for each text, the same wherever and whenever it is asked for. Any text is known."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, dim)."""
        return torch.from_numpy(np.stack([self._vector(text) for text in texts]))

    def weights(self) -> list[Tensor]:
        """The vector of no text: all others come from the same rule."""
        return [self([UNNAMED])]

    def _vector(self, text: str) -> Any:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)


class ClipTexts:
    """The pooled output of CLIP's text tower, before its projection; each text is encoded once."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        try:
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
            # as a text model of its own it would be read with a page of warnings about the image tower
            self.model: Any = CLIPModel.from_pretrained(folder).eval().requires_grad_(False).text_model
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: holds no CLIP text encoder ({first_line(error)})") from None
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, T)."""
        for text in texts:
            if text not in self._known:
                length = self.model.config.max_position_embeddings
                found = self.tokenizer(text, padding="max_length", max_length=length, truncation=True)
                ids = torch.tensor([found["input_ids"]])
                self._known[text] = self.model(ids).pooler_output[0].float()
        return torch.stack([self._known[text] for text in texts])

    def weights(self) -> list[Tensor]:
        """The text tower's."""
        return list(self.model.state_dict().values())


def text_encoder(spec: TextSpec) -> TextEncoder:
    """The encoder that is asked for. Raises DataError if its vectors have another width than `spec.dim`."""
    found: TextEncoder = ClipTexts(pull(spec.clip)) if spec.clip else RandomTexts(spec.dim)
    width = found([UNNAMED]).shape[1]
    if width != spec.dim:
        raise DataError(f"text.clip '{spec.clip}' makes vectors of {width} numbers, and text.dim says {spec.dim}")
    return found
