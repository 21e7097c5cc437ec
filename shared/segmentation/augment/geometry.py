"""Steps that move pixels: image, labels and points alike. (view, step, rng) -> view.

Images are interpolated linearly, labels by nearest neighbours, points are moved exactly.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.segmentation.augment import options
from shared.segmentation.augment.view import View
from shared.segmentation.augment.warp import about_centre, moved, transformed, warp_image, warp_labels
from shared.segmentation.samples import Array

_ITERATIONS = 20


def horizontal_flip(view: View, step: options.HorizontalFlip, rng: np.random.Generator) -> View:
    return _rearranged(view, lambda x: x[:, ::-1], np.array([[-1, 0, view.size[1] - 1], [0, 1, 0]]))


def vertical_flip(view: View, step: options.VerticalFlip, rng: np.random.Generator) -> View:
    return _rearranged(view, lambda x: x[::-1], np.array([[1, 0, 0], [0, -1, view.size[0] - 1]]))


def rotate90(view: View, step: options.Rotate90, rng: np.random.Generator) -> View:
    for _ in range(int(rng.integers(4))):
        # counter-clockwise: the right column becomes the top row
        view = _rearranged(view, np.rot90, np.array([[0, 1, 0], [-1, 0, view.size[1] - 1]]))
    return view


def _rearranged(view: View, move: Callable[[Array], Array], matrix: Array) -> View:
    """Pixels moved by `move`, points by the same map as a matrix (2, 3)."""
    image, labels = move(view.image), None if view.labels is None else move(view.labels)
    result = View(image, labels, view.points)
    return result if view.points is None else result.with_points(transformed(view.points, matrix))


def grid_shuffle(view: View, step: options.GridShuffle, rng: np.random.Generator) -> View:
    """Where `grid` does not divide a side, cells differ in size: only equal ones change places."""
    if min(view.size) < step.grid:
        raise DataError(f"grid_shuffle: an image of {view.size} cannot be cut into {step.grid} x {step.grid} cells")
    cuts = [np.linspace(0, side, step.grid + 1, dtype=int) for side in view.size]
    corners = np.stack(np.meshgrid(cuts[0][:-1], cuts[1][:-1], indexing="ij"), 2).reshape(-1, 2)
    sizes = np.stack(np.meshgrid(np.diff(cuts[0]), np.diff(cuts[1]), indexing="ij"), 2).reshape(-1, 2)
    place = np.arange(len(corners))  # where each cell goes
    for shape in np.unique(sizes, axis=0):
        equal = np.flatnonzero((sizes == shape).all(1))
        place[equal] = rng.permutation(equal)
    image, labels = view.image.copy(), None if view.labels is None else view.labels.copy()
    for (top, left), (new_top, new_left), (height, width) in zip(corners, corners[place], sizes, strict=True):
        old, new = _box(top, left, height, width), _box(new_top, new_left, height, width)
        image[new] = view.image[old]
        if labels is not None and view.labels is not None:
            labels[new] = view.labels[old]
    result = View(image, labels, view.points)
    if view.points is None:
        return result
    row, column = (_cell(view.points[:, 1 - axis], cuts[axis]) for axis in (0, 1))
    shift = (corners[place] - corners)[row * step.grid + column]
    return result.with_points(view.points[:, :2] + shift[:, ::-1])


def _cell(places: Array, cuts: Array) -> Array:
    """Index of the cell that holds each coordinate."""
    return np.clip(np.searchsorted(cuts, np.floor(places + 0.5), side="right") - 1, 0, len(cuts) - 2)


def shift_scale(view: View, step: options.ShiftScale, rng: np.random.Generator) -> View:
    matrix = about_centre(view.size, float(rng.uniform(1 - step.scale, 1 + step.scale)))
    matrix[:2, 2] += rng.uniform(-step.shift, step.shift, 2) * np.array([view.size[1], view.size[0]])
    return moved(view, matrix, view.size, "constant")


def pad(view: View, step: options.Pad, rng: np.random.Generator) -> View:
    more = [(0, -side % step.multiple) for side in view.size]
    labels = None if view.labels is None else np.pad(view.labels, more)
    return View(np.pad(view.image, [*more, (0, 0)]), labels, view.points)


def random_crop(view: View, step: options.RandomCrop, rng: np.random.Generator) -> View:
    return _crop(view, step.size, rng)


def random_sized_crop(view: View, step: options.RandomSizedCrop, rng: np.random.Generator) -> View:
    crop = _crop(view, int(rng.integers(step.smallest, step.largest + 1)), rng)
    factor = step.size / crop.size[0]
    # pixel areas are scaled, not their centres: x' + 0.5 = factor * (x + 0.5)
    matrix = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return moved(crop, matrix, (step.size, step.size), "edge")


def _crop(view: View, side: int, rng: np.random.Generator) -> View:
    if min(view.size) < side:
        height, width = view.size
        raise DataError(
            f"a crop of {side} pixels does not fit into an image of {width}x{height}; crop less or pad first"
        )
    top, left = (int(rng.integers(size - side + 1)) for size in view.size)
    box = _box(top, left, side, side)
    crop = View(view.image[box], None if view.labels is None else view.labels[box], view.points)
    return crop if view.points is None else crop.with_points(view.points[:, :2] - [left, top])


def _box(top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
    return slice(top, top + height), slice(left, left + width)


def elastic(view: View, step: options.Elastic, rng: np.random.Generator) -> View:
    """The affine map comes first; a new pixel p then shows what the affine map has put to p + d(p)."""
    from scipy.ndimage import gaussian_filter

    matrix = _random_affine(view.size, step.affine, rng)
    noise = rng.uniform(-1, 1, (2, *view.size))
    field = np.stack([step.alpha * gaussian_filter(plane, step.sigma, mode="mirror") for plane in noise])
    rows, columns = np.indices(view.size)
    target = np.stack([(columns + field[0]).ravel(), (rows + field[1]).ravel()], 1)
    source = transformed(target, np.linalg.inv(matrix)).T[::-1].reshape(2, *view.size)
    labels = None if view.labels is None else warp_labels(view.labels, source, view.size, "reflect")
    result = View(warp_image(view.image, source, view.size, "reflect"), labels, view.points)
    return result if view.points is None else result.with_points(_undo(transformed(view.points, matrix), field))


def _random_affine(size: tuple[int, int], most: float, rng: np.random.Generator) -> Array:
    """(3, 3): the map that moves three points around the centre by up to `most` pixels in x and y."""
    side = min(size) // 3
    before = np.array([size[1] // 2, size[0] // 2]) + side * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-most, most, before.shape)
    homogeneous = np.concatenate([before, np.ones((3, 1))], 1)
    return np.concatenate([np.linalg.solve(homogeneous, after).T, [[0, 0, 1]]])


def _undo(points: Array, field: Array) -> Array:
    """p with p + d(p) = points (n, 2), by iteration: smooth displacements are a contraction."""
    from scipy.ndimage import map_coordinates

    found = points
    for _ in range(_ITERATIONS):
        at = found[:, ::-1].T
        found = points - np.stack([map_coordinates(plane, at, order=1, mode="nearest") for plane in field], 1)
    return found


GEOMETRY: dict[str, Callable[[View, Any, np.random.Generator], View]] = {
    "horizontal_flip": horizontal_flip,
    "vertical_flip": vertical_flip,
    "rotate90": rotate90,
    "grid_shuffle": grid_shuffle,
    "shift_scale": shift_scale,
    "pad": pad,
    "random_crop": random_crop,
    "random_sized_crop": random_sized_crop,
    "elastic": elastic,
}
