"""Drawings of detections over truth: pictures for a report, and single ones for a folder."""

import numpy as np

from shared.detection.detect import Detections
from shared.results.figure import Figure
from shared.segmentation.overlays import Case, best_median_worst, draw_contours, overlay_figure
from shared.segmentation.samples import Array, Instances, Objects, Sample

SHOWN = 0.5  # score from which a detection is drawn


def draw(image: Array, found: Detections, score: float = SHOWN, names: list[str] | None = None) -> Array:
    """The picture (H, W, 3) uint8 with contours, boxes and labels ("square 0.93") of detections of that score on.

    names: of the classes; None: no labels.
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
            pen.text((left + 2, top + 1), f"{names[kind]} {value:.2f}", fill=(255, 255, 255), stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def detection_figure(
    samples: list[Sample],
    found: dict[str, list[Detections]],
    scores: Array,
    title: str,
    caption: str,
    name: str,
    score: float = SHOWN,
) -> Figure:
    """Best, median and worst image: the picture, each method's detections, the truth.

    found: method -> detections of each sample. scores: (N,) what orders the samples, higher is better.
    """
    cases = []
    for place, index in best_median_worst(scores).items():
        sample = samples[index]
        panels: dict[str, Array | Instances | Objects | None] = {"image": None}
        for method, detections in found.items():
            panels[method] = detections[index].above(score).masks
        panels["truth"] = sample.truth
        cases.append(Case(f"{place}: {sample.name} ({scores[index]:.2f})", sample.image, panels))
    return overlay_figure(cases, title, caption, name)


def mean_mask_iou(found: Detections, truth: Array, score: float = SHOWN) -> float:
    """How well an image is solved, to order pictures by: for each true mask (n, H, W) its best IoU among detections,
    and 0 for every detection more than there are objects, averaged. 1 for an image without either."""
    masks = found.above(score).masks
    count = max(len(masks), len(truth))
    if not count:
        return 1.0
    if not len(masks) or not len(truth):
        return 0.0
    a, b = (part.reshape(len(part), -1).astype(np.float32) for part in (truth, masks))
    common = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None] - common
    return float((common / np.maximum(union, 1)).max(1).sum() / count)
