"""Signed masks of plain shapes: positive inside, in pixels to the edge (roughly, for slanted edges).

dx, dy: from the shape's centre to the pixel, dy grows downwards; r: radius. All three broadcast. Only additions,
products, comparisons and square roots: the same bytes on every machine.
"""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _circle(dx: Array, dy: Array, r: Array) -> Array:
    return r - np.sqrt(dx * dx + dy * dy)


def _square(dx: Array, dy: Array, r: Array) -> Array:
    return 0.86 * r - np.maximum(np.abs(dx), np.abs(dy))


def _triangle(dx: Array, dy: Array, r: Array) -> Array:
    return np.minimum(0.5 * (dy + r) - np.abs(dx) + 0.5, 0.75 * r - dy)


def _cross(dx: Array, dy: Array, r: Array) -> Array:
    across = np.minimum(r - np.abs(dx), 0.34 * r - np.abs(dy))
    return np.maximum(across, np.minimum(0.34 * r - np.abs(dx), r - np.abs(dy)))


def _ring(dx: Array, dy: Array, r: Array) -> Array:
    return 0.26 * r - np.abs(np.sqrt(dx * dx + dy * dy) - 0.78 * r)


def _bar(dx: Array, dy: Array, r: Array) -> Array:
    return np.minimum(0.36 * r - np.abs(dy), 1.1 * r - np.abs(dx))


MASKS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "bar": _bar,
}


def coverage(signed: Array) -> Array:
    """Share of a pixel inside, 0..1: one pixel wide edges."""
    return np.clip(signed + 0.5, 0.0, 1.0)


def offsets(size: int, centre_x: Array, centre_y: Array) -> tuple[Array, Array]:
    """dx (N, 1, size) and dy (N, size, 1) of pixel centres (at i + 0.5) from the centres (N,) of N shapes."""
    pixels = np.arange(size) + 0.5
    return pixels[None, None, :] - centre_x[:, None, None], pixels[None, :, None] - centre_y[:, None, None]
