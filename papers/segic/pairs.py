"""Training pairs: a target and an example with masks of the same things, each augmented by itself.

Semantic pairs are two images of a class; instance pairs are two views of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from papers.segic.inputs import fitted_mask, fitted_size
from shared.errors import DataError
from shared.segmentation.augment.appearance import color_jitter
from shared.segmentation.augment.options import ColorJitter
from shared.segmentation.episodes.source import EpisodeSource
from shared.segmentation.jitter import large_scale_jitter
from shared.segmentation.resize import Window, resize, resize_image
from shared.segmentation.samples import Array, Objects, Sample, Source
from shared.segmentation.steps import Step

_COLOURS = ColorJitter(kind="color_jitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_NO_KEY = (-1, -1)
_MOST_DRAWS = 100
_TRIES = 10  # random crops of the right shape before the whole picture is taken


class Side(NamedTuple):
    """Target or example. image: (S, S, 3) uint8; size: height and width of the picture in it; masks: (n, S, S) float32
    in 0..1. key: the set and the view that the image is, by which its features are kept; -1 for a new one."""

    image: Array
    size: tuple[int, int]
    masks: Array
    key: tuple[int, int] = _NO_KEY


class TrainingPair(NamedTuple):
    """name: of the class, empty for instances. shown: all classes of the target."""

    target: Side
    example: Side
    name: str
    shown: tuple[str, ...]


class Pairs(Protocol):
    """Draws training pairs."""

    def draw(self, rng: np.random.Generator) -> TrainingPair: ...


@dataclass(frozen=True)
class SemanticPairs:
    """Pairs of a set with classes. number: of the set among all; side: pixels of the input."""

    episodes: EpisodeSource
    number: int
    side: int
    mirror_only: bool

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.episodes.source.names)}

    def draw(self, rng: np.random.Generator) -> TrainingPair:
        """A random image, a random class of it, and another image of the class."""
        source, side = self.episodes.source, self.side
        pair = self.episodes.draw(rng)
        views = []
        for view in (pair.query, pair.examples[0]):
            if self.mirror_only:
                key = (self.number, self._places[view.name])
                views.append(mirrored(view.image, view.mask[None], side, key, rng))
            else:
                views.append(jittered(view.image, view.mask, side, rng))
        shown = source.shown[self._places[pair.query.name]]
        return TrainingPair(views[0], views[1], pair.name, tuple(source.classes[label] for label in shown))


@dataclass(frozen=True)
class InstancePairs:
    """Two views of each image of a set with objects. most: objects of a pair. kept: numbers of the classes that are
    used; None: all."""

    source: Source
    number: int
    side: int
    mirror_only: bool
    most: int
    kept: frozenset[int] | None = None

    def draw(self, rng: np.random.Generator) -> TrainingPair:
        """A random image; one without any object is drawn again. Raises DataError if a hundred in a row have none."""
        for _ in range(_MOST_DRAWS):
            place = int(rng.integers(len(self.source)))
            sample = self.source[place]
            masks = objects_of(sample, self.kept)
            if len(masks):
                return self._pair(sample.image, masks, (self.number, place), rng)
        raise DataError(f"{sample.name}: has no object, nor has any of {_MOST_DRAWS} random images of this set")

    def _pair(self, image: Array, masks: Array, key: tuple[int, int], rng: np.random.Generator) -> TrainingPair:
        if self.mirror_only:
            views = [mirrored(image, masks, self.side, key, rng) for _ in range(2)]
        else:
            views = [cropped(image, masks, self.side, rng) for _ in range(2)]
        chosen = chosen_objects([view.masks for view in views], int(rng.integers(1, self.most + 1)), rng)
        target, example = (view._replace(masks=view.masks[chosen]) for view in views)
        return TrainingPair(target, example, "", ())


def objects_of(sample: Sample, kept: frozenset[int] | None = None) -> Array:
    """Masks (n, H, W) bool of a sample's single objects, without crowds; kept: only those of some classes."""
    truth, masks = sample.truth, sample.masks
    chosen = np.ones(len(masks), bool)
    if isinstance(truth, Objects):
        chosen &= ~truth.crowd
    if kept is not None and not isinstance(truth, np.ndarray):
        chosen &= np.isin(truth.classes, list(kept))
    return masks[chosen]


def chosen_objects(views: Sequence[Array], number: int, rng: np.random.Generator) -> Array:
    """Numbers of at most `number` random objects, rising, that can be seen in all views; the first if none can."""
    seen = np.flatnonzero(np.min([masks.sum((1, 2)) * 255 > 100 for masks in views], axis=0))
    return np.sort(rng.permutation(seen)[:number]) if len(seen) else np.zeros(1, np.int64)


def mirrored(image: Array, masks: Array, side: int, key: tuple[int, int], rng: np.random.Generator) -> Side:
    """The whole picture, mirrored left to right with probability 1/2. masks: (n, H, W) bool."""
    turned = bool(rng.random() < 0.5)
    if turned:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    height, width = fitted_size(image.shape, side)
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = resize_image(image, (height, width))
    own = (key[0], 2 * key[1] + turned)
    return Side(square, (height, width), np.stack([fitted_mask(mask, side) for mask in masks]), own)


def jittered(image: Array, mask: Array, side: int, rng: np.random.Generator) -> Side:
    """Mirrored with probability 1/2, then at a random scale (0.1 to 2) and place. mask: (H, W) bool."""
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    # a fourth channel shows where the padding begins
    marked = np.dstack([image, np.full(mask.shape, 255, np.uint8)])
    picture, soft = large_scale_jitter(marked, np.where(mask, np.uint8(255), np.uint8(0)), rng, side)
    inside = picture[..., 3] == 255
    return Side(picture[..., :3], (int(inside[:, 0].sum()), int(inside[0].sum())), soft[None] / 255)


def cropped(image: Array, masks: Array, side: int, rng: np.random.Generator) -> Side:
    """A random crop of 0.3 to 1.0 of the picture's area stretched to the square, mirrored with probability 0.1, with
    other colours with probability 0.2. masks: (n, H, W) bool."""
    window = random_crop(image.shape, rng)
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    image, masks = image[rows, columns], masks[:, rows, columns]
    if rng.random() < 0.2:
        image = color_jitter(image, _COLOURS, rng)
    if rng.random() < 0.1:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return Side(resize_image(image, (side, side)), (side, side), resize(masks.astype(np.float32), (side, side)))


def random_crop(shape: Sequence[int], rng: np.random.Generator) -> Window:
    """A window of 0.3 to 1.0 of the area with sides in a ratio of 3/4 to 4/3; the whole picture if none fits."""
    height, width = shape[:2]
    for _ in range(_TRIES):
        area = height * width * rng.uniform(0.3, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Window(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    return Window(0, 0, height, width)


class PairBatch(NamedTuple):
    """B pairs; the two of a pair are target and example.

    images: (B, 2, 3, S, S) uint8; sizes: (B, 2, 2) int64; keys: (B, 2, 2) int64, as in Side. masks: (B, 2, M, S, S)
    uint8 in 0..255, the first counts[b] of M being the pair's. names: of the classes, "" for instances; shown: classes
    of each target. seeds: (B,) int64, of everything random that the loss does.
    """

    images: Tensor
    sizes: Tensor
    keys: Tensor
    masks: Tensor
    counts: Tensor
    names: list[str]
    shown: list[str]
    seeds: Tensor


@dataclass(frozen=True)
class PairMaker:
    """Makes the batch of a step: pairs of sets that are drawn with equal probability."""

    sets: Sequence[Pairs]

    def __call__(self, step: Step) -> PairBatch:
        pairs = [self.sets[int(step.rng.integers(len(self.sets)))].draw(step.rng) for _ in step.positions]
        return collated(pairs, step.rng.integers(2**62, size=len(pairs)))


def collated(pairs: Sequence[TrainingPair], seeds: Array) -> PairBatch:
    """Pairs of different numbers of masks as one batch."""
    most, side = max(len(pair.target.masks) for pair in pairs), pairs[0].target.image.shape[0]
    masks = np.zeros((len(pairs), 2, most, side, side), np.uint8)
    for row, pair in zip(masks, pairs, strict=True):
        for own, view in zip(row, (pair.target, pair.example), strict=True):
            own[: len(view.masks)] = np.rint(255 * view.masks)
    sides = [(pair.target, pair.example) for pair in pairs]
    return PairBatch(
        torch.from_numpy(np.stack([[view.image.transpose(2, 0, 1) for view in both] for both in sides])),
        torch.tensor([[view.size for view in both] for both in sides]),
        torch.tensor([[view.key for view in both] for both in sides]),
        torch.from_numpy(masks),
        torch.tensor([len(pair.target.masks) for pair in pairs]),
        [pair.name for pair in pairs],
        ["\n".join(pair.shown) for pair in pairs],
        torch.from_numpy(np.asarray(seeds, np.int64)),
    )
