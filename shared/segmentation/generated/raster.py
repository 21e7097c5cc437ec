"""Shapes as exact masks, and what all generated scenes share.

A digest pins the generated files, so the drawing must not depend on the machine. It uses numpy's frozen generator
`RandomState`, and +, -, *, / and comparisons in float64, which every machine rounds alike: no matrix product, no sum
whose order a library may choose. Sines and the noise's logarithms may differ in their last digit; that would change a
byte only if a value lay within 1e-13 of a threshold.

Coordinates are (x, y) in pixels, y downwards; pixel (column, row) covers [column, column + 1) x [row, row + 1).
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shared.segmentation.generated.parts import SIDE

Array = np.ndarray


class Grid(NamedTuple):
    """Points at which a shape is tested. x: (1, n), y: (n, 1)."""

    x: Array
    y: Array


def grid(points_per_pixel: int) -> Grid:
    """The centres of `points_per_pixel` x `points_per_pixel` equal cells of every pixel of an image."""
    centres = (np.arange(SIDE * points_per_pixel) + 0.5) / points_per_pixel
    return Grid(centres[None], centres[:, None])


PIXELS = grid(1)


def stream(name: str) -> np.random.RandomState:
    """The random stream of a part, such as "thin_shapes/tuning"."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def uniform(random: np.random.RandomState, low: float, high: float) -> float:
    """U(low, high)."""
    # RandomState.uniform computes this in C, where a compiler may fuse the two operations and round once.
    share = float(random.random_sample())
    return low + (high - low) * share


def direction(angle: float) -> Array:
    """The unit vector (x, y) at `angle` (radians)."""
    return np.array([math.cos(angle), math.sin(angle)])


def ellipse(points: Grid, centre: Array, axis: Array, a: float, b: float) -> Array:
    """(n, n) bool: ellipse with semi-axis `a` along the unit vector `axis` and `b` across it (pixels)."""
    along, across = _turned(points, centre, axis)
    return np.asarray((along / a) ** 2 + (across / b) ** 2 <= 1)


def rectangle(points: Grid, centre: Array, axis: Array, a: float, b: float) -> Array:
    """(n, n) bool: rectangle with half side `a` along the unit vector `axis` and `b` across it (pixels)."""
    along, across = _turned(points, centre, axis)
    return np.asarray((np.abs(along) <= a) & (np.abs(across) <= b))


def disc(points: Grid, centre: Array, radius: float) -> Array:
    """(n, n) bool: disc (pixels)."""
    x, y = points.x - centre[0], points.y - centre[1]
    return np.asarray(x * x + y * y <= radius * radius)


def strokes(points: Grid, starts: Sequence[Array], ends: Sequence[Array], width: float) -> Array:
    """(n, n) bool: union of straight strokes with round ends, from each start (2,) to its end (2,)."""
    limit = (width / 2) ** 2
    found = np.zeros((points.y.size, points.x.size), bool)
    for start, end in zip(starts, ends, strict=True):
        dx, dy = end - start
        length = dx * dx + dy * dy
        x, y = points.x - start[0], points.y - start[1]
        along = x * dx + y * dy
        across = x * dy - y * dx
        # Outside the ends the distance is that to the nearer end; between them that to the line.
        found |= (across * across <= limit * length) & (along > 0) & (along < length)
        found |= disc(points, start, width / 2) | disc(points, end, width / 2)
    return found


def _turned(points: Grid, centre: Array, axis: Array) -> tuple[Array, Array]:
    """Coordinates along and across `axis` from `centre`."""
    x, y = points.x - centre[0], points.y - centre[1]
    return x * axis[0] + y * axis[1], y * axis[0] - x * axis[1]


def to_uint8(image: Array) -> Array:
    """Values in [0, 1] (others are clipped) as 0..255, rounded."""
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
