"""Windows around objects: what a promptable model sees in place of a whole picture where it zooms in on a box.

Boxes are x0, y0, x1, y1 in pixel indices, the last one inclusive (`shared.segmentation.prompts`).
"""

from dataclasses import replace

import numpy as np

from shared.errors import DataError
from shared.segmentation.data import ZoomSpec
from shared.segmentation.prompts import tight_boxes
from shared.segmentation.resize import Window
from shared.segmentation.samples import FOREGROUND, Array, Sample, Source


def window_around(box: Array, shape: tuple[int, ...], zoom: ZoomSpec) -> Window:
    """The window of a box (4,) in a picture of shape (H, W, ...): centred on the box as far as the picture reaches."""
    x0, y0, x1, y1 = (float(value) for value in box)
    side = round(max(zoom.least, zoom.factor * (1 + max(x1 - x0, y1 - y0))))
    height, width = min(side, shape[0]), min(side, shape[1])
    top, left = round((y0 + y1 + 1 - height) / 2), round((x0 + x1 + 1 - width) / 2)
    return Window(min(max(top, 0), shape[0] - height), min(max(left, 0), shape[1] - width), height, width)


def cut(image: Array, window: Window, zoom: ZoomSpec) -> Array:
    """The window of a picture (H, W, C) uint8: (h, w, C) uint8.

    With `stretch` its lowest value, of any channel, becomes 0 and its highest 255; a single value becomes 0.
    """
    part = inside(image, window)
    if not zoom.stretch:
        return part
    low, high = int(part.min()), int(part.max())
    return np.rint((part.astype(np.float32) - low) * (255 / max(high - low, 1))).astype(np.uint8)


def inside(picture: Array, window: Window) -> Array:
    """The window of a picture or a mask (H, W, ...), as an array of its own."""
    return np.ascontiguousarray(picture[slices(window)])


def slices(window: Window) -> tuple[slice, slice]:
    """Rows and columns of a window."""
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def box_within(box: Array, window: Window, side: int) -> Array:
    """A box (4,) of the picture in pixels of its window resized to `side` pixels a side: (4,) float32.

    Outer edges are kept: a box that fills the window fills the resized one.
    """
    across, down = side / window.width, side / window.height
    first = (box[0] - window.left) * across, (box[1] - window.top) * down
    last = (box[2] + 1 - window.left) * across - 1, (box[3] + 1 - window.top) * down - 1
    return np.array([*first, *last], np.float32)


class Windows:
    """Every sample of a source with one soft mask as the window around its object."""

    def __init__(self, source: Source, zoom: ZoomSpec) -> None:
        self.source, self.zoom = source, zoom

    @property
    def names(self) -> list[str]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        """One window. Raises DataError for a sample without a soft mask, or whose mask is empty."""
        sample = self.source[index]
        if not isinstance(sample.truth, np.ndarray):
            raise DataError(f"{sample.name}: has several objects, a window is around one (`per_instance`)")
        mask = sample.truth > FOREGROUND
        if not mask.any():
            raise DataError(f"{sample.name}: its mask is empty, no window is around it")
        window = window_around(tight_boxes(mask[None])[0], mask.shape, self.zoom)
        return replace(sample, image=cut(sample.image, window, self.zoom), truth=inside(sample.truth, window))
