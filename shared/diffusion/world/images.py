"""The images of the world "shapes x styles": 32 x 32 RGB, one shape in one style and colour, and their captions."""

from typing import NamedTuple

import numpy as np

from shared.diffusion.world.masks import MASKS, coverage, offsets
from shared.diffusion.world.words import COLOURS, FILLERS, OBJECTS, STYLES, caption

SIZE = 32
NUM_TRAIN, NUM_TEST = 3000, 600
RIM = 1.6  # width of an outline, pixels
NOISE = 0.02
WHITE, DARK = (1.0, 1.0, 1.0), (0.05, 0.05, 0.10)
# Shares of the captions that say it
FILLER_SHARE, COLOUR_SHARE, STYLE_SHARE = 0.5, 0.7, 0.85


class Labels(NamedTuple):
    """Indices (N,) into OBJECTS, STYLES and COLOURS."""

    objects: np.ndarray
    styles: np.ndarray
    colours: np.ndarray


def draw_labels(num: int, random: np.random.RandomState) -> Labels:
    """Uniform and independent labels."""
    return Labels(*(random.randint(0, len(names), num) for names in (OBJECTS, STYLES, COLOURS)))


def draw_images(labels: Labels, random: np.random.RandomState, dotted: np.ndarray | None = None) -> np.ndarray:
    """Images (N, 32, 32, 3) uint8 of the labels, at random places and sizes.

    dotted: (N,) bool, images in a fifth style that no label has: a fill of 2 x 2 checks on white.
    """
    num = len(labels.objects)
    centre_x, centre_y = random.uniform(15.0, 17.0, (2, num))
    radius = random.uniform(10.5, 12.0, num)[:, None, None]
    dx, dy = offsets(SIZE, centre_x, centre_y)
    signed = np.empty((num, SIZE, SIZE))
    for index, mask in enumerate(MASKS[name] for name in OBJECTS):
        rows = labels.objects == index
        signed[rows] = mask(dx[rows], dy[rows], radius[rows])
    fill = coverage(signed)
    pairs = (np.arange(SIZE) // 2) % 2
    styled = {
        "flat": fill,
        "outline": fill * (1 - coverage(signed - RIM)),
        "striped": fill * (pairs == 0)[:, None],
        "neon": fill,
    }
    alpha = np.choose(labels.styles[:, None, None], [styled[name] for name in STYLES])
    ground = np.where(labels.styles[:, None] == STYLES.index("neon"), DARK, WHITE)
    if dotted is not None:
        checks = fill * (pairs[:, None] == pairs[None, :])
        alpha, ground = np.where(dotted[:, None, None], checks, alpha), np.where(dotted[:, None], WHITE, ground)
    colour = np.array(list(COLOURS.values()))[labels.colours]
    images = ground[:, None, None] + alpha[..., None] * (colour - ground)[:, None, None]
    images += random.normal(0.0, NOISE, images.shape)
    return np.rint(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


def draw_captions(labels: Labels, random: np.random.RandomState) -> list[str]:
    """A caption an image: filler, colour and style each said with its share, one of the object's two words."""
    num = len(labels.objects)
    word = random.randint(0, 2, num)
    filler = random.randint(0, len(FILLERS), num)
    said = random.uniform(size=(3, num)) < np.array([FILLER_SHARE, COLOUR_SHARE, STYLE_SHARE])[:, None]
    nouns, colours = list(OBJECTS.values()), list(COLOURS)
    return [
        caption(
            nouns[labels.objects[i]][word[i]],
            STYLES[labels.styles[i]] if said[2, i] else None,
            colours[labels.colours[i]] if said[1, i] else None,
            FILLERS[filler[i]] if said[0, i] else None,
        )
        for i in range(num)
    ]


def shapes_styles(seed: int = 0) -> dict[str, np.ndarray | bytes]:
    """Content of every file by name, for one seed: train and test images, labels (N, 3) as in `Labels`, captions."""
    files: dict[str, np.ndarray | bytes] = {}
    random = np.random.RandomState(seed)
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = draw_labels(num, random)
        files[f"{part}_images.npy"] = draw_images(labels, random)
        files[f"{part}_labels.npy"] = np.stack(labels, axis=1).astype("<i8")
        files[f"{part}_captions.txt"] = "".join(f"{line}\n" for line in draw_captions(labels, random)).encode()
    return files
