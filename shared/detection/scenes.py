"""Generated detection scenes: circles, squares and triangles on a soft background, with exact masks and boxes.

train = make_scenes(400, seed=0, name="train")     # a source of samples, and a COCO document

Image i of (seed, name) is the same whatever the number of images.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.segmentation.coco import coco_document
from shared.segmentation.evaluate.cases import painted
from shared.segmentation.generated.parts import NO_CLASS, PARTS
from shared.segmentation.samples import Array, Objects, Sample

CATEGORIES = ["circle", "square", "triangle"]
_INSTANCES = (1, 4)
_SIDES = (10.0, 28.0)  # of a scene of 64 pixels
_TURN = 0.4
_TRIES = 40
_SMALLEST = 20  # pixels
_FIELD = 5
_BACKGROUND = 0.45
_NOISE = 0.04
_FINE = 2  # samples a pixel and side


@dataclass(frozen=True)
class Scenes:
    """A source of generated scenes. images: (N, S, S, 3) uint8; objects: those of each image."""

    images: Array
    objects: list[Objects]
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.names[index], self.images[index], self.objects[index])

    def document(self) -> dict[str, Any]:
        """The scenes as a COCO annotation document: image i has the id i + 1, categories 1, 2, 3."""
        return coco_document(self.names, self.objects, CATEGORIES)


def shape_scenes() -> dict[str, Array]:
    """The files of the set: `<part>_images` (N, 64, 64, 3), `<part>_labels` (N, 64, 64) with ids 1..n, and
    `<part>_classes` (N, 4), the class of each id and 255 for none; all uint8."""
    files: dict[str, Array] = {}
    for number, (part, num) in enumerate(PARTS["shape_scenes"].items()):
        scenes = make_scenes(num, number, part)
        labels = np.stack([painted(objects.masks) for objects in scenes.objects])
        classes = np.full((num, _INSTANCES[1]), NO_CLASS, np.uint8)
        for row, objects in zip(classes, scenes.objects, strict=True):
            row[: len(objects)] = objects.classes
        files |= {f"{part}_images.npy": scenes.images, f"{part}_labels.npy": labels.astype(np.uint8)}
        files[f"{part}_classes.npy"] = classes
    return files


@dataclass(frozen=True)
class _Draws:
    """Every random number of N scenes, drawn scene by scene. shapes: (N, 4, 40, 8) in 0..1, what a try may need."""

    counts: Array
    shapes: Array
    fields: Array
    noise: Array


def make_scenes(num: int, seed: int, name: str = "train", size: int = 64) -> Scenes:
    """`num` scenes of size x size pixels with 1 to 4 objects that share no pixel.

    A scene has fewer objects than it drew if one found no place in 40 tries. All masks have at least 20 pixels.
    """
    draws = _draw(num, seed, name, size)
    colours = np.zeros((num, _INSTANCES[1], 3))
    classes = np.zeros((num, _INSTANCES[1]), np.int64)
    labels = _place(draws, size, classes, colours)
    images = _paint(draws, labels, colours, size)
    objects = []
    for row, kinds in zip(labels, classes, strict=True):
        ids = np.unique(row[row > 0])
        masks = row[None] == ids[:, None, None]
        objects.append(Objects(masks, kinds[ids - 1], np.zeros(len(ids), bool), np.arange(1, len(ids) + 1)))
    return Scenes(images, objects, [f"{name}_{index:05d}.png" for index in range(num)])


def _draw(num: int, seed: int, name: str, size: int) -> _Draws:
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    low, high = _INSTANCES
    counts = np.zeros(num, np.int64)
    shapes = np.zeros((num, high, _TRIES, 8))
    fields = np.zeros((num, _FIELD, _FIELD, 3))
    noise = np.zeros((num, size, size, 3), np.float32)
    for index in range(num):
        rng = np.random.default_rng([seed, stream, index])
        counts[index] = rng.integers(low, high + 1)
        rng.random(out=shapes[index])
        rng.random(out=fields[index])
        rng.standard_normal(out=noise[index], dtype=np.float32)
    return _Draws(counts, shapes, fields, noise)


def _place(draws: _Draws, size: int, classes: Array, colours: Array) -> Array:
    """Label maps (N, S, S), ids 1..4 by slot. Fills classes (N, 4) and colours (N, 4, 3) of the slots in use.

    All scenes try at once: in each round, every scene that still has an object to place tries the next one.
    """
    num = len(draws.counts)
    labels = np.zeros((num, size, size), np.int32)
    slot, attempt = np.zeros(num, np.int64), np.zeros(num, np.int64)
    while (rows := np.flatnonzero(slot < draws.counts)).size:
        place = slot[rows]
        uniform = draws.shapes[rows, place, attempt[rows]]
        masks, kinds = _rasterise(uniform, size)
        fits = (masks.sum((1, 2)) >= _SMALLEST) & ~(masks & (labels[rows] > 0)).any((1, 2))
        good = rows[fits]
        labels[good] += masks[fits] * (place[fits, None, None] + 1).astype(np.int32)
        classes[good, place[fits]] = kinds[fits]
        colours[good, place[fits]] = 0.6 + 0.4 * uniform[fits, 5:8]
        attempt[rows] += 1
        done = fits | (attempt[rows] == _TRIES)
        slot[rows[done]] += 1
        attempt[rows[done]] = 0
    return labels


def _rasterise(uniform: Array, size: int) -> tuple[Array, Array]:
    """Masks (P, S, S) bool and classes (P,) of P shapes, each of 8 numbers in 0..1: class, side, centre, turn.

    A pixel belongs to the shape if at least half of its 2 x 2 samples do.
    """
    kinds = np.minimum((uniform[:, 0] * len(CATEGORIES)).astype(np.int64), len(CATEGORIES) - 1)
    scale = size / 64
    radius = (scale * (_SIDES[0] + uniform[:, 1] * (_SIDES[1] - _SIDES[0])) / 2).astype(np.float32)
    centre = radius + uniform[:, 2:4].T.astype(np.float32) * (size - 2 * radius)
    angle = ((2 * uniform[:, 4] - 1) * _TURN).astype(np.float32)
    place = (np.arange(size * _FINE, dtype=np.float32) + 0.5) / _FINE
    x, y = (place[None] - middle[:, None] for middle in centre)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u = cosine * x[:, None, :] + sine * y[:, :, None]
    v = cosine * y[:, :, None] - sine * x[:, None, :]
    r = radius[:, None, None]
    inside = np.empty(u.shape, bool)
    for kind, test in enumerate((_circle, _square, _triangle)):
        chosen = kinds == kind
        inside[chosen] = test(u[chosen], v[chosen], r[chosen])
    samples = inside.reshape(len(uniform), size, _FINE, size, _FINE).sum((2, 4))
    return samples * 2 >= _FINE**2, kinds


def _circle(u: Array, v: Array, r: Array) -> Array:
    return np.asarray(u * u + v * v <= r * r)


def _square(u: Array, v: Array, r: Array) -> Array:
    return np.asarray((np.abs(u) <= 0.8 * r) & (np.abs(v) <= 0.8 * r))


def _triangle(u: Array, v: Array, r: Array) -> Array:
    return np.asarray((2 * np.abs(u) - r <= v) & (v <= 0.7 * r))


def _paint(draws: _Draws, labels: Array, colours: Array, size: int) -> Array:
    """(N, S, S, 3) uint8: a smooth field below 0.45, objects in colours above 0.6, noise on both."""
    weights = _bicubic(_FIELD, size)
    field = np.einsum("yi,nijc,xj->nyxc", weights, draws.fields.astype(np.float32), weights, optimize=True)
    picture = _BACKGROUND * np.clip(field, 0, 1)
    rows, ys, xs = np.nonzero(labels)
    picture[rows, ys, xs] = colours[rows, labels[rows, ys, xs] - 1]
    picture += _NOISE * draws.noise
    return np.asarray(np.rint(255 * np.clip(picture, 0, 1)), np.uint8)


def _bicubic(before: int, after: int) -> Array:
    """Weights (after, before) of bicubic interpolation along one axis."""
    from PIL import Image

    identity = Image.fromarray(np.eye(before, dtype=np.float32))
    return np.asarray(identity.resize((before, after), Image.Resampling.BICUBIC))
