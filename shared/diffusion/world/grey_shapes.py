"""Grey 12 x 12 images of four shapes: what the class-conditional diffusion model of the small runs learns."""

import numpy as np

from shared.diffusion.world.masks import MASKS, coverage, offsets

SIZE = 12
CLASSES = ("square", "disc", "cross", "triangle")
NUM_TRAIN, NUM_TEST = 400, 100  # a class


def draw_grey_shapes(labels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """White shapes on black at random places and sizes, no noise; labels (N,) index CLASSES. (N, 12, 12, 1) uint8."""
    num = len(labels)
    radius = random.uniform(2.5, 4.0, num)
    # The whole shape stays inside the image
    centre_x, centre_y = radius + random.uniform(size=(2, num)) * (SIZE - 2 * radius)
    dx, dy = offsets(SIZE, centre_x, centre_y)
    signed = np.empty((num, SIZE, SIZE))
    for index, name in enumerate(CLASSES):
        rows = labels == index
        signed[rows] = MASKS["circle" if name == "disc" else name](dx[rows], dy[rows], radius[rows, None, None])
    return np.rint(coverage(signed) * 255).astype(np.uint8)[..., None]


def grey_shapes(seed: int = 0) -> dict[str, np.ndarray]:
    """Content of every file by name, for one seed: train and test images and labels, classes in turn."""
    files = {}
    random = np.random.RandomState(seed)
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = np.tile(np.arange(len(CLASSES)), num)
        files[f"{part}_images.npy"] = draw_grey_shapes(labels, random)
        files[f"{part}_labels.npy"] = labels.astype("<i8")
    return files
