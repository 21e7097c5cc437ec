"""Segmentation without learning, as baselines: Otsu's threshold, alone in a box or with a watershed.

Nothing here is trained. What is tuned, is tuned on training images, like the hyper-parameters of any method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from shared.errors import ConfigError
from shared.options import Count, NonNegative, Options
from shared.segmentation.context import Context
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.predictors import Segmented
from shared.segmentation.prompts import Prompt
from shared.segmentation.samples import Array, Instances, instances_of

_EIGHT_NEIGHBOURS = np.ones((3, 3))


class WatershedOptions(Options):
    """sigma: of the Gaussian before the threshold, pixels. min_distance: pixels between two centres. footprint: side
    of the square in which a centre is farthest from the background. min_area: pixels; smaller instances are dropped.
    """

    sigma: NonNegative = 1.0
    min_distance: Count = 5
    footprint: Count = 5
    min_area: Annotated[int, Field(ge=0)] = 20


class BoxOptions(Options):
    """sigma: of the Gaussian before the threshold, pixels. margin: surroundings of the box that the threshold is
    found with, as a share of its longer side; what most of them are, is background.
    """

    sigma: NonNegative = 1.0
    margin: NonNegative = 0.25


def otsu_watershed(parts: Mapping[str, Any], options: WatershedOptions, context: Context) -> "OtsuWatershed":
    """Otsu (1979) on the smoothed grey image, holes filled; touching objects parted by a watershed on the distance
    to the background."""
    return OtsuWatershed(options)


def otsu_in_box(parts: Mapping[str, Any], options: BoxOptions, context: Context) -> "OtsuInBox":
    """Otsu's threshold around each box; of what stands out inside the box, the largest piece."""
    return OtsuInBox(options)


@dataclass(frozen=True)
class OtsuWatershed:
    """A segmenter of one class. An instance's score is the mean distance of its grey to the threshold, in 0..1."""

    options: WatershedOptions

    def segment(self, image: Array, oracle: Instances | None = None) -> Segmented:
        grey = smooth_grey(image, self.options.sigma)
        threshold = otsu(grey)
        instances = _large(self._split(foreground(grey, threshold)), self.options.min_area)
        points, none = centroids(instances), np.zeros(len(instances), np.int64)
        areas = np.bincount(instances.labels.ravel(), minlength=len(instances) + 1)[1:]
        sums = np.bincount(instances.labels.ravel(), np.abs(grey - threshold).ravel(), len(instances) + 1)[1:]
        scores = sums / np.maximum(areas, 1)
        return Segmented(instances.labels, none, scores, points, scores, none)

    def _split(self, mask: Array) -> Array:
        """Label map of a foreground (H, W) bool."""

        mask = binary_fill_holes(mask)
        distance = distance_transform_edt(mask)
        side = self.options.footprint
        peaks = peak_local_max(
            distance,
            min_distance=self.options.min_distance,
            footprint=np.ones((side, side)),
            labels=label(mask, _EIGHT_NEIGHBOURS)[0],
            exclude_border=False,
        )
        markers = np.zeros(mask.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        return np.asarray(watershed(-distance, markers, connectivity=2, mask=mask))


@dataclass(frozen=True)
class OtsuInBox:
    """Masks of boxes, for `evaluate.kind: prompted`."""

    options: BoxOptions

    def masks(self, image: Array, prompts: list[Prompt]) -> Array:
        """(n, H, W) bool. Raises ConfigError for a prompt without box."""
        grey = smooth_grey(image, self.options.sigma)
        return np.stack([self._mask(grey, prompt) for prompt in prompts])

    def _mask(self, grey: Array, prompt: Prompt) -> Array:
        if prompt.box is None:
            raise ConfigError("otsu_in_box: needs boxes; set evaluate.prompt.kind to 'box'")
        x0, y0, x1, y1 = np.clip(np.round(prompt.box), 0, np.array([*grey.shape[::-1]] * 2) - 1).astype(int)
        margin = round(self.options.margin * max(x1 - x0 + 1, y1 - y0 + 1))
        top, left = max(0, y0 - margin), max(0, x0 - margin)
        crop = grey[top : y1 + margin + 1, left : x1 + margin + 1]
        around = np.ones(crop.shape, bool)
        around[y0 - top : y1 + 1 - top, x0 - left : x1 + 1 - left] = False
        inside = foreground(crop, otsu(crop), around) & ~around
        mask = np.zeros(grey.shape, bool)
        mask[top : y1 + margin + 1, left : x1 + margin + 1] = _largest(inside)
        return mask


def smooth_grey(image: Array, sigma: float) -> Array:
    """Luminance of an image (H, W, 3) uint8 in 0..1, smoothed."""
    return np.asarray(gaussian_filter(rgb2gray(image), sigma))


def otsu(grey: Array) -> float:
    """Otsu's threshold; the value itself where there is but one, so that nothing is above it."""
    return float(threshold_otsu(grey))


def foreground(grey: Array, threshold: float, background: Array | None = None) -> Array:
    """Pixels on the side of the threshold that is not most of the background: objects may be bright or dark.

    background: (H, W) bool, where background is expected; None, or nowhere: along the picture's border. Bright
    objects if it is half and half, or if the picture has a single value.
    """
    bright = grey > threshold
    if background is None or not background.any():
        background = np.ones(grey.shape, bool)
        background[1:-1, 1:-1] = False
    return ~bright if bright[background].mean() > 0.5 else bright


def _large(labels: Array, min_area: int) -> Instances:
    """Instances of a label map with at least `min_area` pixels."""
    kept = np.bincount(labels.ravel()) >= min_area
    return instances_of(np.where(kept[labels], labels, 0))


def _largest(mask: Array) -> Array:
    """The largest connected piece of a mask, without holes."""
    pieces, number = label(mask, _EIGHT_NEIGHBOURS)
    if not number:
        return mask
    return np.asarray(binary_fill_holes(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1))
