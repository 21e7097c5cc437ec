"""Eight families of shapes with a hue each: what the generated sets for in-context segmentation are made of.

Shape and hue go together, so that a tiny model learns within seconds which objects are of one family.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.segmentation.generated.parts import HUE_FAMILIES
from shared.segmentation.generated.raster import Array, Grid, direction, disc, rectangle, to_uint8, uniform

Random = np.random.RandomState
HUE_STEP, HUE_JITTER = 45.0, 12.0  # degrees
SATURATION = 0.7
VALUES = (0.8, 1.0)
FIELD, NOISE = 0.4, 0.03  # brightness of the background, sigma of the noise
TURN = 0.4  # radians, at most


@dataclass(frozen=True)
class Figure:
    """An object: family number, centre (x, y), radius (pixels) and angle (radians)."""

    family: int
    centre: Array
    radius: float
    angle: float

    def mask(self, side: int) -> Array:
        """(side, side) bool: pixels of which at least two of four points lie in the shape."""
        shape = SHAPES[HUE_FAMILIES[self.family]]
        inside = shape(grid_of(side), self.centre, self.radius, self.angle)
        return np.asarray(inside.reshape(side, 2, side, 2).sum((1, 3)) >= 2)


def grid_of(side: int) -> Grid:
    """Two by two points in each pixel of a square image."""
    centres = (np.arange(2 * side) + 0.5) / 2
    return Grid(centres[None], centres[:, None])


def drawn_colour(family: int, random: Random) -> Array:
    """(3,) RGB in 0..1 of one object of a family."""
    hue = HUE_STEP * family + uniform(random, -HUE_JITTER, HUE_JITTER)
    return rgb(hue % 360.0, SATURATION, uniform(random, *VALUES))


def rgb(hue: float, saturation: float, value: float) -> Array:
    """(3,) RGB in 0..1 of hue 0..360, saturation and value in 0..1."""
    sector, chroma = hue / 60.0, saturation * value
    second = chroma * (1.0 - abs(sector % 2.0 - 1.0))
    order = [
        (chroma, second, 0.0),
        (second, chroma, 0.0),
        (0.0, chroma, second),
        (0.0, second, chroma),
        (second, 0.0, chroma),
        (chroma, 0.0, second),
    ][int(sector) % 6]
    return np.array(order) + (value - chroma)


def background(side: int, random: Random) -> Array:
    """(side, side, 3) in 0..0.4: a smooth random field."""
    field = random.random_sample((4, 4, 3))
    weights = _linear_weights(side)
    for axis in (0, 1):
        parts = [np.take(field, [k], axis) * weights[:, k].reshape(-1, *[1] * (2 - axis)) for k in range(4)]
        field = parts[0] + parts[1] + parts[2] + parts[3]
    return np.asarray(FIELD * field)


def _linear_weights(side: int) -> Array:
    """(side, 4): what each of four values counts at each place, linearly between them."""
    position = np.clip((np.arange(side) + 0.5) * 4 / side - 0.5, 0, 3)
    return np.asarray(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(4))))


def finished(picture: Array, random: Random) -> Array:
    """The picture in 0..1 with noise, as uint8."""
    return to_uint8(picture + NOISE * random.standard_normal(picture.shape))


def _polygon(points: Grid, corners: list[Array]) -> Array:
    """(n, n) bool: convex polygon with its corners clockwise as seen (y downwards)."""
    found = np.ones((points.y.size, points.x.size), bool)
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = end - start
        found &= dx * (points.y - start[1]) - dy * (points.x - start[0]) >= 0
    return found


def _ngon(centre: Array, radius: float, angle: float, number: int) -> list[Array]:
    return [centre + radius * direction(angle + 2 * math.pi * k / number) for k in range(number)]


def _triangle(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    return _polygon(points, _ngon(centre, radius, angle - math.pi / 2, 3))


def _square(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    half = 0.8 * radius
    return rectangle(points, centre, direction(angle), half, half)


def _plus(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    axis = direction(angle)
    arms = (radius, radius / 3), (radius / 3, radius)
    return rectangle(points, centre, axis, *arms[0]) | rectangle(points, centre, axis, *arms[1])


def _star(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    """Five spikes: triangles from two corners of a small pentagon to a tip, and the pentagon."""
    tips = _ngon(centre, radius, angle - math.pi / 2, 5)
    inner = _ngon(centre, 0.45 * radius, angle - math.pi / 2 + math.pi / 5, 5)
    found = _polygon(points, inner)
    for k in range(5):
        found |= _polygon(points, [inner[k - 1], tips[k], inner[k]])
    return found


def _circle(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    return disc(points, centre, radius)


def _ring(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    return disc(points, centre, radius) & ~disc(points, centre, 0.5 * radius)


def _bar(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    return rectangle(points, centre, direction(angle), radius, radius / 3)


def _cut_disc(points: Grid, centre: Array, radius: float, angle: float) -> Array:
    """A disc without a quarter: the wedge between two directions at right angles."""
    u, v = direction(angle - 0.75 * math.pi), direction(angle - 0.25 * math.pi)
    wedge = _polygon(points, [centre, centre + 2 * radius * u, centre + 2 * radius * v])
    return disc(points, centre, radius) & ~wedge


Shape = Callable[[Grid, Array, float, float], Array]
SHAPES: dict[str, Shape] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "plus": _plus,
    "star": _star,
    "ring": _ring,
    "bar": _bar,
    "cut_disc": _cut_disc,
}
