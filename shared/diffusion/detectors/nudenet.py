"""NudeNet v3: a one-stage detector of body parts as an ONNX file; its scores are the best boxes' confidences."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from shared.errors import DataError, UserError, first_line

CLASSES = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
# Boxes below this confidence are dropped, and those that overlap a better one by more than this
MIN_SCORE, MAX_OVERLAP = 0.5, 0.5


class NudeNet:
    """session: an ONNX runtime session whose output is (1, 4 + 18, boxes): centre x, y, width, height, class scores."""

    classes = CLASSES

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0]
        size = self._input.shape[-1]
        self._size = size if isinstance(size, int) else 320

    def scores(self, images: Tensor) -> Tensor:
        """(N, 18): the highest confidence among each class's boxes, 0 without one."""
        rows = [best_boxes(self._output(image)) for image in self._prepare(images)]
        return torch.stack(rows).to(images.device) if rows else torch.zeros(0, len(CLASSES), device=images.device)

    def _prepare(self, images: Tensor) -> np.ndarray:
        """Padded to squares at the right and the bottom, resized; (N, 3, size, size) float32, RGB in [0, 1]."""
        height, width = images.shape[-2:]
        side = max(height, width)
        padded = F.pad(images.float(), (0, side - width, 0, side - height))
        resized = F.interpolate(padded, size=(self._size, self._size), mode="bilinear", align_corners=False)
        return resized.cpu().numpy()

    def _output(self, image: np.ndarray) -> Tensor:
        (found,) = self._session.run(None, {self._input.name: image[None]})[:1]
        return torch.from_numpy(np.asarray(found, dtype=np.float32)[0])


def best_boxes(output: Tensor) -> Tensor:
    """(18,) from a raw output (22, boxes): a box has the class of its highest score; suppression knows no classes."""
    boxes, scores = output[:4].T, output[4:].T
    best, classes = scores.max(1)
    sure = best >= MIN_SCORE
    boxes, best, classes = box_convert(boxes[sure], "cxcywh", "xyxy"), best[sure], classes[sure]
    kept = batched_nms(boxes, best, torch.zeros_like(classes), MAX_OVERLAP)
    return torch.zeros(len(CLASSES)).scatter_reduce(0, classes[kept], best[kept], "amax")


def nudenet_detector(file: Path) -> NudeNet:
    """The detector of an ONNX file. Raises UserError if the runtime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("the NudeNet detector needs the package onnxruntime: pip install onnxruntime") from None
    try:
        return NudeNet(onnxruntime.InferenceSession(str(file)))
    except Exception as error:  # the runtime's errors have no common class
        raise DataError(f"{file}: no ONNX model can be read ({first_line(error)})") from None
