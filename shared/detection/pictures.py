"""Pictures of detections, and the score by which a report chooses which ones it shows."""

from typing import TYPE_CHECKING

import numpy as np

from shared.detection.detect import Detections
from shared.segmentation.overlays import draw_contours
from shared.segmentation.samples import Array

if TYPE_CHECKING:
    from PIL import ImageDraw

SHOWN = 0.5  # score from which a detection is drawn


def draw(image: Array, found: Detections, score: float = SHOWN, names: list[str] | None = None) -> Array:
    """The picture (H, W, 3) uint8 with contours, boxes and labels ("square 0.93") of detections of that score on.

    names: of the classes; of a single class the label is the score alone. None: no labels.
    """
    from PIL import Image, ImageDraw

    shown = found.above(score)
    picture = Image.fromarray(draw_contours(image, shown.masks))
    pen = ImageDraw.Draw(picture)
    # falling score: the best is drawn last, on top
    for box, kind, value in list(zip(shown.boxes.tolist(), shown.classes, shown.scores, strict=True))[::-1]:
        left, top, right, bottom = box
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=(255, 255, 255))
        if names is not None:
            _label(pen, left, top, f"{names[kind]} {value:.2f}" if len(names) > 1 else f"{value:.2f}")
    return np.asarray(picture)


def _label(pen: "ImageDraw.ImageDraw", x: float, y: float, text: str) -> None:
    """Text on a box's upper left corner (x, y), below it at the picture's top, and never beyond its right edge."""
    left, top, right, bottom = pen.textbbox((0, 0), text, stroke_width=1)
    x = max(0, min(x, pen.im.size[0] - (right - left)))
    y = y - (bottom - top) if y >= bottom - top else y + 1
    pen.text((x - left, y - top), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))


def mean_mask_iou(found: Detections, truth: Array) -> float:
    """How well an image is solved, to order pictures by: for each true mask (n, H, W) its best IoU among detections,
    and 0 for every detection more than there are objects, averaged. 1 for an image without either."""
    count = max(len(found), len(truth))
    if not count:
        return 1.0
    if not len(found) or not len(truth):
        return 0.0
    a, b = (part.reshape(len(part), -1).astype(np.float32) for part in (truth, found.masks))
    common = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None] - common
    return float((common / np.maximum(union, 1)).max(1).sum() / count)
