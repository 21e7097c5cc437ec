"""Thin shapes: one object an image, with an exact and a coarse mask. A stand-in for what HQ-SAM corrects in SAM
(arXiv:2306.01567): SAM is trained on the coarse masks, a few families are tuned on the exact ones.

Objects are brighter than the background; without a fixed polarity a tiny model does not learn them from hundreds of
images.
"""

import math
from collections.abc import Callable

import numpy as np

from shared.segmentation.generated.parts import FAMILIES, PARTS, SIDE
from shared.segmentation.generated.raster import (
    PIXELS,
    Array,
    Grid,
    direction,
    disc,
    ellipse,
    grid,
    rectangle,
    stream,
    strokes,
    to_uint8,
    uniform,
)

NOISE = 0.05
COARSE_SIGMA = 2.0  # pixels
CORE = (0.2, 0.4)  # radius of a core as a share of its object's
_FINE_GRID = grid(2)

Random = np.random.RandomState


def thin_shapes() -> dict[str, Array]:
    """The files of the set: for each part `<part>_images` (N, 64, 64, 3), `_fine` and `_coarse` (N, 64, 64) of 0 or
    255, all uint8, and `_families` (N,) of names."""
    files: dict[str, Array] = {}
    for part in PARTS["thin_shapes"]:
        images, fine, families = _part(part)
        files |= {
            f"{part}_images.npy": images,
            f"{part}_fine.npy": fine * np.uint8(255),
            f"{part}_coarse.npy": coarsened(fine) * np.uint8(255),
            f"{part}_families.npy": families,
        }
    return files


def _part(part: str) -> tuple[Array, Array, Array]:
    """Images, exact masks (bool) and family names of a part; its families alternate."""
    random, num, known = stream(f"thin_shapes/{part}"), PARTS["thin_shapes"][part], FAMILIES[part]
    families = [known[index % len(known)] for index in range(num)]
    images, masks = np.empty((num, SIDE, SIDE, 3), np.uint8), np.empty((num, SIDE, SIDE), bool)
    for index, family in enumerate(families):
        masks[index] = fine_mask(draw_shape(family, random))
        images[index] = paint(masks[index], random)
    return images, masks, np.array(families)


def fine_mask(shape: Callable[[Grid], Array]) -> Array:
    """(64, 64) bool: at least half of four points of the pixel lie in the shape."""
    return np.asarray(shape(_FINE_GRID).reshape(SIDE, 2, SIDE, 2).sum((1, 3)) >= 2)


def coarsened(masks: Array) -> Array:
    """Masks (N, H, W) bool blurred with sigma 2 and cut at 0.5; one of which nothing is left stays as it was."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(masks.astype(np.float64), COARSE_SIGMA, axes=(1, 2)) >= 0.5
    return np.where(blurred.any((1, 2), keepdims=True), blurred, masks)


def paint(mask: Array, random: Random) -> Array:
    """(64, 64, 3) uint8: smooth dark background, a bright and a dark disc under the object, the object, noise."""
    image = upsampled(random.random_sample((4, 4, 3))) * 0.45
    for low, span in ((0.6, 0.4), (0.0, 0.15)):
        centre = np.array([uniform(random, 0, SIDE), uniform(random, 0, SIDE)])
        image[disc(PIXELS, centre, uniform(random, 3, 7))] = low + span * random.random_sample(3)
    image[mask] = 0.6 + 0.4 * random.random_sample(3)
    return to_uint8(image + NOISE * random.standard_normal(image.shape))


def upsampled(field: Array) -> Array:
    """A field (4, 4, C) bicubically enlarged to (64, 64, C): the kernel with a = -0.75, borders repeated."""
    for axis in (0, 1):
        weights = _CUBIC.reshape(-1, 4, *[1] * (2 - axis))
        parts = [np.take(field, [k], axis) * weights[:, k] for k in range(4)]
        field = parts[0] + parts[1] + parts[2] + parts[3]
    return field


def _cubic_weights() -> Array:
    """(64, 4): what each of four values counts at each of 64 places. Exact: all numbers are short binary fractions."""
    weights = np.zeros((SIDE, 4))
    for place in range(SIDE):
        position = (place + 0.5) * 4 / SIDE - 0.5
        for tap in range(math.floor(position) - 1, math.floor(position) + 3):
            t = abs(position - tap)
            near, far = (1.25 * t - 2.25) * t * t + 1, ((-0.75 * t + 3.75) * t - 6) * t + 3
            weights[place, min(max(tap, 0), 3)] += near if t <= 1 else far
    return weights


_CUBIC = _cubic_weights()


def draw_shape(family: str, random: Random) -> Callable[[Grid], Array]:
    """A random object of a family: centre U(20, 44), radius U(14, 22), stroke width U(1.5, 3), any rotation."""
    centre = np.array([uniform(random, 20, 44), uniform(random, 20, 44)])
    radius, width = uniform(random, 14, 22), uniform(random, 1.5, 3)
    return SHAPES[family](centre, radius, width, uniform(random, 0, 2 * math.pi), random)


Drawing = Callable[[Array, float, float, float, Random], Callable[[Grid], Array]]


def _star(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    """5 to 9 spikes around a small core."""
    num, core = int(random.randint(5, 10)), uniform(random, *CORE) * radius
    tips = [centre + radius * direction(angle + 2 * math.pi * k / num) for k in range(num)]
    return lambda points: strokes(points, [centre] * num, tips, width) | disc(points, centre, core)


def _ring(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    return lambda points: disc(points, centre, radius) & ~disc(points, centre, radius - width)


def _comb(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    """4 to 6 parallel teeth on a spine of twice their width."""
    num, u, v = (
        int(random.randint(4, 7)),
        0.7 * radius * direction(angle),
        0.7 * radius * direction(angle + math.pi / 2),
    )
    roots = [centre - v + (2 * k / (num - 1) - 1) * u for k in range(num)]
    tips = [root + 2 * v for root in roots]
    return lambda points: strokes(points, roots, tips, width) | strokes(points, roots[:1], roots[-1:], 2 * width)


def _cross(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    """Two strokes at a right angle and a small core."""
    u, v = radius * direction(angle), uniform(random, 0.6, 1) * radius * direction(angle + math.pi / 2)
    core = uniform(random, *CORE) * radius
    return lambda points: (
        strokes(points, [centre - u, centre - v], [centre + u, centre + v], width) | disc(points, centre, core)
    )


def _fork(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    """A handle, a small core and three tines on a bar."""
    u, v, core = (
        radius * direction(angle),
        0.5 * radius * direction(angle + math.pi / 2),
        uniform(random, *CORE) * radius,
    )
    starts = [centre - u, centre - v, centre - v, centre, centre + v]
    ends = [centre, centre + v, centre - v + 0.8 * u, centre + u, centre + v + 0.8 * u]
    return lambda points: strokes(points, starts, ends, width) | disc(points, centre, core)


def _ellipse(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    share = uniform(random, 0.5, 0.9)
    return lambda points: ellipse(points, centre, direction(angle), radius, share * radius)


def _rectangle(centre: Array, radius: float, width: float, angle: float, random: Random) -> Callable[[Grid], Array]:
    a, b = uniform(random, 0.6, 0.9) * radius, uniform(random, 0.4, 0.7) * radius
    return lambda points: rectangle(points, centre, direction(angle), a, b)


SHAPES: dict[str, Drawing] = {
    "star": _star,
    "comb": _comb,
    "ring": _ring,
    "cross": _cross,
    "fork": _fork,
    "ellipse": _ellipse,
    "rectangle": _rectangle,
}
