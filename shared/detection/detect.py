"""From pictures to objects: the detector's boxes and masks in each picture's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from shared.detection.batches import image_batch
from shared.detection.detector import Raw
from shared.detection.options import FixedSize, InputSize, PixelOptions
from shared.detection.resizing import input_image, input_size
from shared.segmentation.samples import Array

MASK_THRESHOLD = 0.5
_MOST_PIXELS = 2**24  # of the pasted masks that are held as floating point numbers at once


@dataclass(frozen=True)
class Detections:
    """Objects found in one picture, by falling score. boxes: (n, 4) float32 x1, y1, x2, y2; scores: (n,) float32;
    classes: (n,) int64 from 0; masks: (n, H, W) bool."""

    boxes: Array
    scores: Array
    classes: Array
    masks: Array

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> "Detections":
        """Those of at least that score."""
        chosen = self.scores >= score
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], self.masks[chosen])


@torch.no_grad()
def detect(model: nn.Module, images: Sequence[Array], size: InputSize, pixels: PixelOptions) -> list[Detections]:
    """Objects in pictures (H, W, 3) uint8 of any sizes, as one batch. The model is put into evaluation mode."""
    device = next(model.parameters()).device
    batch = image_batch([input_image(image, size) for image in images], pixels).to(device)
    found: list[Raw] = model.eval()(batch)
    return [restore(raw, image.shape[:2], size) for raw, image in zip(found, images, strict=True)]


def restore(raw: Raw, shape: tuple[int, ...], size: InputSize) -> Detections:
    """What was found, in a picture of `shape` (height, width). Boxes without area after the cut at its edges go."""
    height, width = shape[:2]
    seen = input_size(height, width, size)
    down, right = height / seen[0], width / seen[1]
    if isinstance(size, FixedSize) and size.one_factor:
        # the padded square is what the released code divides by, so this is longer side / size
        down = right = max(height, width) / size.size
    scale = raw.boxes.new_tensor([right, down, right, down])
    limit = raw.boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum((raw.boxes * scale).clamp(min=0), limit)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, masks = boxes[kept], raw.masks[kept]
    return Detections(
        boxes.float().cpu().numpy(),
        raw.scores[kept].float().cpu().numpy(),
        raw.classes[kept].cpu().numpy(),
        paste(masks, boxes, height, width),
    )


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Array:
    """Mask probabilities (n, M, M) in boxes (n, 4) as masks (n, H, W) bool of the whole picture, from 0.5 on.

    Bilinear at the centre of every pixel, zeros around the M x M values: detectron2's, which has no rounding of boxes.
    Interpolation is linear along each axis, so a mask is (H x M) (M x M) (M x W) matrices.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    step = max(1, _MOST_PIXELS // max(1, height * width))
    for start in range(0, len(masks), step):
        part, box = masks[start : start + step].float(), boxes[start : start + step].float()
        rows = _weights(box[:, 1], box[:, 3], height, part.shape[-1])
        columns = _weights(box[:, 0], box[:, 2], width, part.shape[-1])
        values = rows @ part @ columns.transpose(1, 2)
        pasted[start : start + step] = (values >= MASK_THRESHOLD).cpu().numpy()
    return pasted


def _weights(low: Tensor, high: Tensor, length: int, cells: int) -> Tensor:
    """Weights (n, length, cells) of the cells between low and high (n,) at the centres of `length` pixels."""
    centres = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    place = (centres[None] - low[:, None]) / (high - low)[:, None] * cells - 0.5
    index = torch.arange(cells, device=low.device, dtype=low.dtype)
    return (1 - (place[..., None] - index).abs()).clamp(min=0)
