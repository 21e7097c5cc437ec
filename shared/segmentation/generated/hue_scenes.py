"""Two sets of scenes with objects of different families, for in-context segmentation: find in one picture what an
annotated object in another shows.

hue_scenes: 48x48 pixels with two or three objects, and clips of 8 frames with two moving objects, after the small scale
of SegIC (arXiv:2311.14671). hue_triples: 32x32 pixels with three objects, after that of DiffewS (arXiv:2410.02369).
"""

from collections.abc import Sequence

import numpy as np

from shared.segmentation.generated.families import TURN, Figure, background, drawn_colour, finished
from shared.segmentation.generated.parts import CLIPS, HUE_FAMILIES, NO_CLASS, PARTS
from shared.segmentation.generated.raster import Array, stream, uniform

SCENE_SIDE, SCENE_RADII, SCENE_OBJECTS = 48, (6.0, 10.0), (2, 3)
TRIPLE_SIDE, TRIPLE_RADII, TRIPLE_OBJECTS = 32, (5.0, 8.0), (3, 3)
LEAST_AREA = 20  # pixels
NUM_FRAMES, MOST_SPEED = 8, 2.0  # frames of a clip, pixels a frame in x and in y
_TRIES = 10  # places tried for an object before its scene starts anew

Random = np.random.RandomState
Files = dict[str, Array]


def hue_scenes() -> Files:
    """For each part `<part>_images` (N, 48, 48, 3), `_labels` (N, 48, 48) with ids 1..n and `_classes` (N, 3), the
    family number of each id or 255; of the clips (N, 8, 48, 48, 3), (N, 8, 48, 48) and (N, 2). All uint8."""
    files: Files = {}
    for part, number in PARTS["hue_scenes"].items():
        random = stream(f"hue_scenes/{part}")
        if part in CLIPS:
            files |= _clips(part, number, random)
        else:
            files |= _scenes(part, number, SCENE_SIDE, SCENE_RADII, SCENE_OBJECTS, random)
    return files


def hue_triples() -> Files:
    """For each part `<part>_images` (N, 32, 32, 3), `_labels` (N, 32, 32) with ids 1..3 and `_classes` (N, 3) family
    numbers. All uint8."""
    files: Files = {}
    for part, number in PARTS["hue_triples"].items():
        random = stream(f"hue_triples/{part}")
        files |= _scenes(part, number, TRIPLE_SIDE, TRIPLE_RADII, TRIPLE_OBJECTS, random)
    return files


def _scenes(
    part: str, number: int, side: int, radii: tuple[float, float], objects: tuple[int, int], random: Random
) -> Files:
    images, labels = np.empty((number, side, side, 3), np.uint8), np.zeros((number, side, side), np.uint8)
    classes = np.full((number, objects[1]), NO_CLASS, np.uint8)
    for index in range(number):
        figures = scattered(int(random.randint(objects[0], objects[1] + 1)), side, radii, random)
        labels[index] = painted_labels(figures, side)
        colours = [drawn_colour(figure.family, random) for figure in figures]
        images[index] = finished(_coloured(background(side, random), labels[index], colours), random)
        classes[index, : len(figures)] = [figure.family for figure in figures]
    return {f"{part}_images.npy": images, f"{part}_labels.npy": labels, f"{part}_classes.npy": classes}


def _clips(part: str, number: int, random: Random) -> Files:
    side, num = SCENE_SIDE, 2
    images = np.empty((number, NUM_FRAMES, side, side, 3), np.uint8)
    labels, classes = np.zeros((number, NUM_FRAMES, side, side), np.uint8), np.zeros((number, num), np.uint8)
    for index in range(number):
        frames = moving(num, side, SCENE_RADII, random)
        colours, field = [drawn_colour(f.family, random) for f in frames[0]], background(side, random)
        classes[index] = [figure.family for figure in frames[0]]
        for time, figures in enumerate(frames):
            labels[index, time] = painted_labels(figures, side)
            images[index, time] = finished(_coloured(field, labels[index, time], colours), random)
    return {f"{part}_images.npy": images, f"{part}_labels.npy": labels, f"{part}_classes.npy": classes}


def painted_labels(figures: Sequence[Figure], side: int) -> Array:
    """(side, side) uint8 with ids 1..n of figures that do not overlap."""
    labels = np.zeros((side, side), np.uint8)
    for number, figure in enumerate(figures, 1):
        labels[figure.mask(side)] = number
    return labels


def scattered(number: int, side: int, radii: tuple[float, float], random: Random) -> list[Figure]:
    """Figures of `number` different families, whole inside the image and without a common pixel."""
    while True:
        families = random.permutation(len(HUE_FAMILIES))[:number]
        figures: list[Figure] = []
        taken = np.zeros((side, side), bool)
        for family in families:
            placed = _placed(int(family), taken, side, radii, random)
            if placed is None:
                break
            figures.append(placed)
        if len(figures) == number:
            return figures


def _placed(family: int, taken: Array, side: int, radii: tuple[float, float], random: Random) -> Figure | None:
    """A figure on free pixels, which it then takes; None if it found no place."""
    for _ in range(_TRIES):
        radius = uniform(random, *radii)
        centre = np.array([uniform(random, radius, side - radius), uniform(random, radius, side - radius)])
        figure = Figure(family, centre, radius, uniform(random, -TURN, TURN))
        mask = figure.mask(side)
        if mask.sum() >= LEAST_AREA and not (mask & taken).any():
            taken |= mask
            return figure
    return None


def moving(number: int, side: int, radii: tuple[float, float], random: Random) -> list[list[Figure]]:
    """The figures of each frame: straight ways at an even speed that stay in the image and do not cross."""
    while True:
        first = scattered(number, side, radii, random)
        speeds = [np.array([uniform(random, -MOST_SPEED, MOST_SPEED) for _ in "xy"]) for _ in first]
        frames = [[_moved(f, time * s) for f, s in zip(first, speeds, strict=True)] for time in range(NUM_FRAMES)]
        if all(_is_free(figures, side) for figures in frames):
            return frames


def _moved(figure: Figure, way: Array) -> Figure:
    return Figure(figure.family, figure.centre + way, figure.radius, figure.angle)


def _is_free(figures: Sequence[Figure], side: int) -> bool:
    inside = all(f.centre.min() >= f.radius and f.centre.max() <= side - f.radius for f in figures)
    return inside and bool(np.sum([f.mask(side) for f in figures], axis=0).max() <= 1)


def _coloured(field: Array, labels: Array, colours: Sequence[Array]) -> Array:
    picture = field.copy()
    for number, colour in enumerate(colours, 1):
        picture[labels == number] = colour
    return picture
