"""One bright ellipse or rectangle an image: what a small SAM learns before it is fine-tuned on touching nuclei."""

import math

import numpy as np

from shared.segmentation.generated.bright_scenes import painted
from shared.segmentation.generated.parts import PARTS, SIDE
from shared.segmentation.generated.raster import PIXELS, Array, direction, ellipse, rectangle, stream, uniform

HALF_SIDES = (4.5, 12.0)  # pixels; the nuclei's semi-axes are the small end of it


def single_shapes() -> dict[str, Array]:
    """The files of the set: `<part>_images` (N, 64, 64) and `<part>_masks` (N, 64, 64) of 0 or 255, both uint8."""
    files: dict[str, Array] = {}
    for part, num in PARTS["single_shapes"].items():
        random = stream(f"single_shapes/{part}")
        images, masks = (np.empty((num, SIDE, SIDE), np.uint8) for _ in range(2))
        for index in range(num):
            mask = draw_shape(random)
            images[index], masks[index] = painted(mask.astype(np.int64), random), mask * np.uint8(255)
        files |= {f"{part}_images.npy": images, f"{part}_masks.npy": masks}
    return files


def draw_shape(random: np.random.RandomState) -> Array:
    """(64, 64) bool: an ellipse or a rectangle, each with probability 1/2, of any rotation."""
    shape = ellipse if random.random_sample() < 0.5 else rectangle
    a, b = uniform(random, *HALF_SIDES), uniform(random, *HALF_SIDES)
    centre = np.array([uniform(random, 16, SIDE - 16), uniform(random, 16, SIDE - 16)])
    return shape(PIXELS, centre, direction(uniform(random, 0, math.pi)), a, b)
