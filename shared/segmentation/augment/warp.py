"""Images, labels and points under one map of coordinates (x, y)."""

import numpy as np

from shared.segmentation.augment.view import View
from shared.segmentation.samples import Array


def moved(view: View, matrix: Array, size: tuple[int, int], border: str) -> View:
    """The view under the affine `matrix` (3, 3) of old to new coordinates, as a picture of `size` (height, width).

    border: "constant" (black background), "edge", or "reflect" for what lies outside.
    """
    inverse = np.linalg.inv(matrix)
    image = warp_image(view.image, inverse, size, border)
    labels = None if view.labels is None else warp_labels(view.labels, inverse, size, border)
    warped = View(image, labels, view.points)
    return warped if view.points is None else warped.with_points(transformed(view.points, matrix))


def warp_image(image: Array, inverse: Array, size: tuple[int, int], border: str) -> Array:
    """(H, W, 3) uint8 to `size`, interpolated linearly. inverse: (3, 3) of new to old coordinates, or old coordinates
    (2, height, width) as rows and columns of every new pixel.
    """
    from skimage.transform import warp

    pixels = image.astype(np.float32)
    if inverse.ndim == 3:
        channels = [warp(channel, inverse, order=1, mode=border) for channel in np.moveaxis(pixels, 2, 0)]
        return to_uint8(np.stack(channels, 2))
    return to_uint8(warp(pixels, inverse, output_shape=size, order=1, mode=border))


def warp_labels(labels: Array, inverse: Array, size: tuple[int, int], border: str) -> Array:
    """A label map to `size` by nearest neighbours."""
    from skimage.transform import warp

    values = labels.astype(np.float64)  # exact for every 32-bit id
    found = warp(values, inverse, output_shape=size, order=0, mode=border, preserve_range=True)
    return np.asarray(found.astype(labels.dtype))


def transformed(points: Array, matrix: Array) -> Array:
    """x and y of points (n, >= 2) under an affine matrix (2 or 3, 3): (n, 2)."""
    return np.asarray(points[:, :2] @ matrix[:2, :2].T + matrix[:2, 2])


def about_centre(size: tuple[int, int], factor: float) -> Array:
    """(3, 3): enlargement by `factor` about the centre of an image of (height, width)."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.array([[factor, 0, x - factor * x], [0, factor, y - factor * y], [0, 0, 1]])


def to_uint8(pixels: Array) -> Array:
    """Rounded, and cut to 0..255."""
    return np.asarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
