"""Touching nuclei: 7 to 11 bright ellipses an image, half of them placed against a neighbour or partly over it. A
stand-in for crowded nuclei in PromptNucSeg (arXiv:2311.15939), where one point alone leaves open which of two
touching nuclei is meant.
"""

import math
from typing import NamedTuple

import numpy as np

from shared.segmentation.generated.bright_scenes import painted
from shared.segmentation.generated.parts import PARTS, SIDE
from shared.segmentation.generated.raster import PIXELS, Array, direction, ellipse, stream, uniform

NUM_NUCLEI = (7, 11)
SEMI_AXES = (4.5, 7.5)  # pixels
MARGIN = 6.0  # pixels from a centre to the border, at least
MOST_COVERED = 0.25  # share of an ellipse that lies over, or under, others
_TRIES = 60  # draws of one ellipse before its scene starts anew

Random = np.random.RandomState


def touching_nuclei() -> dict[str, Array]:
    """The files of the set: `<part>_images` (N, 64, 64), `<part>_labels` (N, 64, 64) with ids 1..n, both uint8."""
    files: dict[str, Array] = {}
    for part, num in PARTS["touching_nuclei"].items():
        random = stream(f"touching_nuclei/{part}")
        images, labels = (np.empty((num, SIDE, SIDE), np.uint8) for _ in range(2))
        for index in range(num):
            labels[index] = draw_labels(random)
            images[index] = painted(labels[index], random)
        files |= {f"{part}_images.npy": images, f"{part}_labels.npy": labels}
    return files


class Nucleus(NamedTuple):
    """An ellipse: centre (x, y), semi-axis `a` along the unit vector `axis`, `b` across it, and its pixels (64, 64)."""

    centre: Array
    axis: Array
    a: float
    b: float
    pixels: Array


def draw_labels(random: Random) -> Array:
    """(64, 64) uint8 label map: a later ellipse overwrites earlier ones."""
    num = int(random.randint(NUM_NUCLEI[0], NUM_NUCLEI[1] + 1))
    while True:
        if nuclei := _placed(num, random):
            labels = np.zeros((SIDE, SIDE), np.uint8)
            for number, nucleus in enumerate(nuclei, 1):
                labels[nucleus.pixels] = number
            return labels


def _placed(num: int, random: Random) -> list[Nucleus]:
    """Nuclei of a scene in the order of painting: the first half keeps apart, the others touch one before them.

    Empty if an ellipse found no place.
    """
    nuclei: list[Nucleus] = []
    apart = num - num // 2
    for index in range(num):
        for _ in range(_TRIES):
            nucleus = _free(random) if index < apart else _against(nuclei[random.randint(len(nuclei))], random)
            if _fits(nucleus, nuclei, touching=index >= apart):
                nuclei.append(nucleus)
                break
        else:
            return []
    return nuclei


def _free(random: Random) -> Nucleus:
    centre = np.array([uniform(random, MARGIN, SIDE - MARGIN), uniform(random, MARGIN, SIDE - MARGIN)])
    return _nucleus(centre, random)


def _against(other: Nucleus, random: Random) -> Nucleus:
    """A nucleus in a random direction from another, at 0.75 to 1.05 times the distance at which the two meet on the
    line between their centres."""
    shape, towards = _nucleus(other.centre, random), direction(uniform(random, 0, 2 * math.pi))
    reach = (_polar_radius(other, towards) + _polar_radius(shape, towards)) * uniform(random, 0.75, 1.05)
    centre = other.centre + reach * towards
    return shape._replace(centre=centre, pixels=ellipse(PIXELS, centre, shape.axis, shape.a, shape.b))


def _nucleus(centre: Array, random: Random) -> Nucleus:
    a, b = uniform(random, *SEMI_AXES), uniform(random, *SEMI_AXES)
    axis = direction(uniform(random, 0, math.pi))
    return Nucleus(centre, axis, a, b, ellipse(PIXELS, centre, axis, a, b))


def _polar_radius(nucleus: Nucleus, towards: Array) -> float:
    """Distance from the centre to the outline in a direction (unit vector)."""
    along = float(towards[0] * nucleus.axis[0] + towards[1] * nucleus.axis[1])
    across = float(towards[1] * nucleus.axis[0] - towards[0] * nucleus.axis[1])
    return 1 / math.sqrt((along / nucleus.a) ** 2 + (across / nucleus.b) ** 2)


def _fits(nucleus: Nucleus, nuclei: list[Nucleus], touching: bool) -> bool:
    """Whether it may be painted over the others: inside the margin; touching one of them, or two pixels from all; no
    ellipse covers others, or is covered, by more than a quarter."""
    if nucleus.centre.min() < MARGIN or nucleus.centre.max() > SIDE - MARGIN:
        return False
    if not nuclei:
        return True
    labels = np.zeros((SIDE, SIDE), np.int64)
    for number, other in enumerate(nuclei, 1):
        labels[other.pixels] = number
    near = labels[_grown(nucleus.pixels if touching else _grown(nucleus.pixels))].any()
    if near != touching:
        return False
    left = np.bincount(labels[~nucleus.pixels], minlength=len(nuclei) + 1)[1:]
    areas = np.array([other.pixels.sum() for other in nuclei])
    over = np.count_nonzero(labels[nucleus.pixels])
    return bool(over <= MOST_COVERED * nucleus.pixels.sum() and (left >= (1 - MOST_COVERED) * areas).all())


def _grown(pixels: Array) -> Array:
    """The pixels and their eight neighbours."""
    rows = pixels.copy()
    rows[1:] |= pixels[:-1]
    rows[:-1] |= pixels[1:]
    both = rows.copy()
    both[:, 1:] |= rows[:, :-1]
    both[:, :-1] |= rows[:, 1:]
    return both
