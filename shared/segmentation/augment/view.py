"""What an augmentation changes: an image with the label map and the points that belong to it.

Coordinates are pixel centres: (0, 0) is the middle of the first pixel, and a point lies in the image for
-0.5 <= x < W - 0.5.
"""

from typing import NamedTuple

import numpy as np

from shared.segmentation.samples import Array


class View(NamedTuple):
    """image: (H, W, 3) uint8. labels: (H, W) int32 or None; their ids stay as they are, those that leave the image
    are missing. points: (n, 2 + k) or None: x, y and k further columns (a class) that move with the point.
    """

    image: Array
    labels: Array | None
    points: Array | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]

    def with_points(self, xy: Array) -> "View":
        """The points at new places (n, 2), without those that are no longer in the image."""
        assert self.points is not None
        moved = np.concatenate([xy, self.points[:, 2:]], 1).astype(self.points.dtype)
        return self._replace(points=moved[inside(moved, self.size)])


def inside(points: Array, size: tuple[int, int]) -> Array:
    """(n,) bool: which points (n, >= 2) lie in an image of (height, width)."""
    height, width = size
    x, y = points[:, 0], points[:, 1]
    return np.asarray((x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5))
