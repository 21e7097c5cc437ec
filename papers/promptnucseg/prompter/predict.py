"""From an image to point prompts: candidates, the foreground filter, non-maximum suppression."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from papers.promptnucseg.prompter.model import Prompter
from papers.promptnucseg.prompter.options import PointOptions
from shared.errors import ConfigError
from shared.gpu.precision import precision_for
from shared.segmentation.samples import Array

_PIXELS = 2**20  # of all images that go through the network at once: 16 of 256x256


@dataclass(frozen=True)
class Points:
    """Points of one image. xy: (p, 2) float32; scores: (p,) float32, probability of the class; classes: (p,) int64 from
    0. mask_logits: (H, W) float32 of the foreground map, or None without one.
    """

    xy: Array
    scores: Array
    classes: Array
    mask_logits: Array | None = None

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, index: Array) -> "Points":
        """The points at `index` (integers or booleans), with the same map."""
        return replace(self, xy=self.xy[index], scores=self.scores[index], classes=self.classes[index])


def predict_points(model: Prompter, image: Array, options: PointOptions) -> Points:
    """Point prompts of an image (H, W, 3) uint8: candidates, filtered if asked for, then suppressed."""
    return select(candidates(model, image), options)


def select(points: Points, options: PointOptions) -> Points:
    """Filter, then non-maximum suppression: in this order."""
    return suppress(on_foreground(points) if options.filter else points, options.radius)


def candidates(model: Prompter, image: Array) -> Points:
    """Every prediction of an image whose likeliest class is not background, moved to the nearest place inside it."""
    return next(all_candidates(model, [image]))


@torch.no_grad()
def all_candidates(model: Prompter, images: Iterable[Array]) -> Iterator[Points]:
    """`candidates` of each image, in order; neighbours of equal size go through the network together."""
    model.eval()
    precision = precision_for(model.pixel_mean.device)
    for (height, width), group in groupby(images, lambda image: image.shape[:2]):
        while some := list(islice(group, max(1, _PIXELS // (height * width)))):
            pixels = np.stack([image.transpose(2, 0, 1) for image in some])
            padded = pad_to_multiple(torch.from_numpy(pixels).to(model.pixel_mean.device), model.options.spacing)
            with precision.context():
                predicted = model(padded)
            mask = None if predicted.mask is None else predicted.mask[:, 0, :height, :width].cpu().numpy()
            probabilities, points = predicted.logits.softmax(-1).cpu().numpy(), predicted.points.cpu().numpy()
            for index in range(len(pixels)):
                yield _points(
                    points[index], probabilities[index], (height, width), None if mask is None else mask[index]
                )


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Black at the bottom and right of images (B, 3, H, W), as in training."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def _points(points: Array, probabilities: Array, size: tuple[int, int], mask: Array | None) -> Points:
    xy = np.clip(points, 0, [size[1] - 1, size[0] - 1]).astype(np.float32)
    classes = probabilities.argmax(1)
    scores = probabilities.max(1)
    nucleus = classes < probabilities.shape[1] - 1
    return Points(xy[nucleus], scores[nucleus], classes[nucleus].astype(np.int64), mask)


def on_foreground(points: Points) -> Points:
    """MAPF, mask-assisted point filtering: the points whose pixel, cut to whole numbers, has a logit above 0.

    Raises ConfigError for a prompter that has learnt no foreground map.
    """
    if points.mask_logits is None:
        raise ConfigError("the point filter needs a foreground map: train the prompter with an aux_weight above 0")
    columns, rows = points.xy.astype(np.int64).T
    return points.take(points.mask_logits[rows, columns] > 0)


def suppress(points: Points, radius: float) -> Points:
    """Non-maximum suppression over all classes: in falling score (equals in their order) a point that remains removes
    all others within `radius` pixels (inclusive). The result is in falling score.
    """
    from scipy.spatial import KDTree

    order = np.argsort(-points.scores, kind="stable")
    ordered = points.take(order)
    if not len(points):
        return ordered
    near = KDTree(ordered.xy).query_ball_point(ordered.xy, radius)
    alive = np.ones(len(ordered), bool)
    for index, others in enumerate(near):
        if alive[index]:
            alive[others] = False
            alive[index] = True
    return ordered.take(alive)
