"""Masks of a picture at its own resolution: any number of prompts, in pixels of the picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from segment_anything.utils.transforms import ResizeLongestSide

from shared.errors import DataError
from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.model import SamModel
from shared.segmentation.sam.prompts import Prompts


@dataclass(frozen=True)
class Picture:
    """An embedded picture. size: (H, W) of the picture; scaled: (H, W) in the model's input, the rest is padding."""

    embeddings: Embeddings
    size: tuple[int, int]
    scaled: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """masks: (N, K, H, W) bool at the picture's size. iou: (N, K) predicted. low_res: (N, K, L, L) logits."""

    masks: NDArray[np.bool_]
    iou: NDArray[np.float32]
    low_res: NDArray[np.float32]


class Predictor:
    """SAM's inference: long side resized to the model's size, padded, masks enlarged and cut at 0.

    at_once: prompts a decoder call; more are done in turns, which bounds memory (some 60 MB a prompt at 1024 pixels).
        None: 32, and 4 on a CPU, whose caches larger batches leave.
    options: those of the decoder, such as `hq_token_only`.
    """

    def __init__(self, model: SamModel, at_once: int | None = None, **options: Any) -> None:
        self.model = model.eval()
        self.at_once = at_once or (4 if model.device.type == "cpu" else 32)
        self.options = options
        self._resize = ResizeLongestSide(model.size.image)

    @torch.inference_mode()
    def embed(self, picture: NDArray[np.uint8]) -> Picture:
        """Embed a picture (H, W, 3) uint8 once, for any number of prompts."""
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            found = f"{picture.dtype} of shape {picture.shape}"
            raise DataError(f"a picture must be uint8 of shape (H, W, 3), this one is {found}; convert it to RGB")
        scaled = self._resize.apply_image(picture)
        pixels = torch.as_tensor(scaled.copy(), device=self.model.device).permute(2, 0, 1)[None]
        embeddings = self.model.mask_decoder.prepare(self.model.embed(pixels))
        return Picture(embeddings, picture.shape[:2], scaled.shape[:2])

    @torch.inference_mode()
    def predict(
        self,
        picture: Picture,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        masks: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks of N prompts. boxes: (N, 4) as x0, y0, x1, y1. points: (N, P, 2) as x, y with labels (N, P): 1 inside,
        0 outside, -1 none. masks: (N, 1, L, L) logits of an earlier prediction. At least one of them.
        """
        prompts = self._prompts(picture, boxes, points, labels, masks)
        parts = [
            self._some(picture, prompts[start : start + self.at_once], multimask)
            for start in range(0, max(len(prompts), 1), self.at_once)
        ]
        return Prediction(*(torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)))

    def _some(self, picture: Picture, prompts: Prompts, multimask: bool) -> tuple[torch.Tensor, ...]:
        found = self.model(picture.embeddings, prompts, multimask=multimask, **self.options)
        if len(prompts) == 0:
            shape = (*found.logits.shape[:2], *picture.size)
            return torch.zeros(shape, dtype=torch.bool), found.iou, found.logits
        enlarged = self.model.postprocess_masks(found.logits, picture.scaled, picture.size)
        return enlarged > self.model.mask_threshold, found.iou, found.logits

    def _prompts(self, picture: Picture, boxes: Any, points: Any, labels: Any, masks: Any) -> Prompts:
        given = {"boxes": boxes, "points": points, "labels": labels, "masks": masks}
        tensors = {
            name: torch.as_tensor(np.asarray(value, dtype=np.float32), device=self.model.device)
            for name, value in given.items()
            if value is not None
        }
        if not tensors:
            raise DataError("a prediction needs boxes, points or masks as prompts")
        for name, resize in (("boxes", self._resize.apply_boxes_torch), ("points", self._resize.apply_coords_torch)):
            if name in tensors:
                tensors[name] = resize(tensors[name], picture.size)
        number = len(next(iter(tensors.values())))
        return Prompts(torch.zeros(number, dtype=torch.long, device=self.model.device), **tensors)
