"""A baseline that learns nothing: a pixel is in the mask if its features are nearer to the mean feature of the
example's object than to that of its background.

It says how much of a result comes from features alone. A paper gives it those of its own backbone: `NearestFeatures`
takes any function of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from shared.options import Options, Positive
from shared.segmentation.context import Context
from shared.segmentation.episodes.predictor import Example, check_image
from shared.segmentation.resize import resize
from shared.segmentation.samples import Array

Features = Callable[[Array], Array]


class NearestOptions(Options):
    """sigma: pixels, of the surroundings of which mean colour and contrast are features beside the pixel's own colour.
    distance: "euclidean", of features divided by their spread in the examples, or "cosine"."""

    sigma: Positive = 2.0
    distance: Literal["euclidean", "cosine"] = "euclidean"


def nearest_features(parts: Mapping[str, Any], options: NearestOptions, context: Context | None) -> "NearestFeatures":
    """The baseline on colours."""
    return NearestFeatures(lambda image: colour_features(image, options.sigma), options.distance)


def colour_features(image: Array, sigma: float) -> Array:
    """(7, H, W) float32 of an image (H, W, 3) uint8: colour, mean colour around it, and contrast around it, in 0..1."""
    pixels = image.astype(np.float32) / 255
    around = gaussian_filter(pixels, (sigma, sigma, 0))
    variance = gaussian_filter(pixels**2, (sigma, sigma, 0)) - around**2
    contrast = np.sqrt(np.maximum(variance, 0).mean(-1, keepdims=True))
    return np.concatenate([pixels, around, contrast], -1).transpose(2, 0, 1)


@dataclass(frozen=True)
class Means:
    """What is kept of the examples: mean features of object and background (D,), spread of all (D,)."""

    inside: Array
    outside: Array
    spread: Array


class NearestFeatures:
    """features: image (H, W, 3) uint8 -> (D, h, w) float32, on any grid over the whole image. Of several examples all
    pixels count alike. An example whose mask leaves no background is compared with the mean over the whole image."""

    most_examples: int | None = None

    def __init__(self, features: Features, distance: Literal["euclidean", "cosine"] = "euclidean") -> None:
        self.features, self.distance = features, distance

    def remember(self, examples: Sequence[Example], name: str | None = None) -> Means:
        """The name is not read."""
        everything, weights = [], []
        for example in examples:
            features = self.features(example.image)
            share = resize(example.mask.astype(np.float32), (features.shape[1], features.shape[2])).ravel()
            if not share.any():
                # an object that falls between the points of a coarse grid
                share = _where(example.mask, (features.shape[1], features.shape[2])).ravel()
            everything.append(features.reshape(len(features), -1))
            weights.append(share)
        columns, weight = np.concatenate(everything, 1).astype(np.float64), np.concatenate(weights).astype(np.float64)
        inside = columns @ weight / weight.sum()
        rest = 1 - weight
        outside = columns @ rest / rest.sum() if rest.sum() > 0 else columns.mean(1)
        return Means(inside, outside, np.maximum(columns.std(1), 1e-6))

    def masks(self, memory: Means, images: Sequence[Array]) -> list[Array]:
        """Nearer to the object than to the background."""
        return [score > 0 for score in self.scores(memory, images)]

    def scores(self, memory: Means, images: Sequence[Array]) -> list[Array]:
        """By how much a pixel is nearer to the object, in 0..1; 0 where it is not."""
        return [self._score(memory, image) for image in images]

    def _score(self, memory: Means, image: Array) -> Array:
        check_image(image)
        features = self.features(image)
        columns = features.reshape(len(features), -1)
        near, far = self._distance(memory.inside, columns, memory), self._distance(memory.outside, columns, memory)
        margin = ((far - near) / np.maximum(far + near, 1e-12)).reshape(features.shape[1:])
        return np.clip(resize(margin, (image.shape[0], image.shape[1])), 0, 1)

    def _distance(self, mean: Array, columns: Array, memory: Means) -> Array:
        """(n,) distances of columns (D, n) to a mean (D,)."""
        if self.distance == "cosine":
            lengths = np.maximum(np.linalg.norm(columns, axis=0) * np.linalg.norm(mean), 1e-12)
            return np.asarray(1 - mean @ columns / lengths)
        return np.asarray(np.linalg.norm((columns - mean[:, None]) / memory.spread[:, None], axis=0))


def _where(mask: Array, size: tuple[int, int]) -> Array:
    """The cells of a grid into which the mask's pixels fall, as (h, w) float32 of 0 and 1."""
    found = np.zeros(size, np.float32)
    rows, columns = np.nonzero(mask)
    found[rows * size[0] // mask.shape[0], columns * size[1] // mask.shape[1]] = 1
    return found
