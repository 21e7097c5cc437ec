"""Resized examples: pictures by PIL (bilinear, antialiased), masks by nearest neighbour, boxes by their scale.

A window of the result costs only that window: a picture enlarged twofold and cropped is never made whole.
"""

import numpy as np

from shared.detection.examples import Example, clip_boxes, tight_boxes, without_empty
from shared.detection.options import FixedSize, InputSize, SameSize
from shared.errors import DataError
from shared.segmentation.resize import Window
from shared.segmentation.samples import Array

PADDING = 128  # grey level of what a fixed size adds, before normalisation


def short_side(height: int, width: int, short: int, longest: int | None = None) -> tuple[int, int]:
    """Height and width when the shorter side becomes `short`, but the longer one at most `longest`."""
    factor = short / min(height, width)
    if longest is not None and factor * max(height, width) > longest:
        factor = longest / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized(example: Example, size: tuple[int, int], window: Window | None = None, recompute: bool = False) -> Example:
    """The example at `size` (height, width), or only a window of that; objects without area go.

    recompute: boxes are the tight ones of the resized masks, else the scaled ones, cut at the window's edges.
    """
    height, width = example.image.shape[:2]
    window = window or Window(0, 0, *size)
    rows, columns = (
        _nearest(before, after, start, length)
        for before, after, start, length in (
            (height, size[0], window.top, window.height),
            (width, size[1], window.left, window.width),
        )
    )
    masks = example.masks[:, rows][:, :, columns]
    if recompute:
        boxes = tight_boxes(masks)
    else:
        scale = np.array([size[1] / width, size[0] / height] * 2, np.float32)
        shift = np.array([window.left, window.top] * 2, np.float32)
        boxes = clip_boxes(example.boxes * scale - shift, window.height, window.width)
    image = resized_image(example.image, size, window)
    return without_empty(Example(image, boxes, example.classes, masks))


def padded(example: Example, size: int) -> Example:
    """The example on a square of grey, at its top left."""
    masks = np.zeros((len(example), size, size), bool)
    masks[:, : example.image.shape[0], : example.image.shape[1]] = example.masks
    return Example(padded_image(example.image, size), example.boxes, example.classes, masks)


def resized_image(image: Array, size: tuple[int, int], window: Window | None = None) -> Array:
    """A picture (H, W, 3) uint8 at `size` (height, width), or only a window of that."""
    from PIL import Image

    height, width = image.shape[:2]
    if min(height, width, *size) < 1:
        raise DataError(f"cannot resize a picture of {image.shape[:2]} to {size[0]}x{size[1]}")
    window = window or Window(0, 0, *size)
    if size == (height, width):
        return image[window.top : window.top + window.height, window.left : window.left + window.width]
    y, x = height / size[0], width / size[1]
    # rounding may leave the box a hair outside, which PIL refuses
    right, bottom = min(width, (window.left + window.width) * x), min(height, (window.top + window.height) * y)
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(
        (window.width, window.height), Image.Resampling.BILINEAR, box=(window.left * x, window.top * y, right, bottom)
    )
    return np.asarray(picture)


def padded_image(image: Array, size: int) -> Array:
    """A picture at the top left of a grey square of `size` pixels."""
    picture = np.full((size, size, 3), PADDING, np.uint8)
    picture[: image.shape[0], : image.shape[1]] = image
    return picture


def input_size(height: int, width: int, options: InputSize) -> tuple[int, int]:
    """Height and width at which a detector looks at a picture, without the padding of `FixedSize`."""
    if isinstance(options, SameSize):
        return height, width
    if isinstance(options, FixedSize):
        return short_side(height, width, options.size, options.size)
    return short_side(height, width, options.short, options.longest)


def input_image(image: Array, options: InputSize) -> Array:
    """A picture (H, W, 3) uint8 as a detector looks at it."""
    picture = resized_image(image, input_size(image.shape[0], image.shape[1], options))
    return padded_image(picture, options.size) if isinstance(options, FixedSize) else picture


def _nearest(before: int, after: int, start: int, length: int) -> Array:
    """Pixels (length,) of an axis of `before` pixels that a window of it at `after` pixels shows."""
    place = (np.arange(start, start + length) + 0.5) * before / after
    return np.minimum(place.astype(np.int64), before - 1)
