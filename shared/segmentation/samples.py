"""What a segmentation data set yields: an image with one soft mask, a label map, or a list of objects."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shared.errors import DataError

Array = np.ndarray
FOREGROUND = 128  # a soft mask's pixel belongs to the object if it is > 128 (HQ-SAM, arXiv:2306.01567)


@dataclass(frozen=True)
class Instances:
    """Instances that do not overlap. labels: (H, W) int32, 0 background, ids 1..n; classes: (n,) int64 from 0.

    One id is one instance, in however many pieces. Touching instances of equal id cannot be told apart:
    `split_components` separates the pieces that do not touch.
    """

    labels: Array
    classes: Array

    def __post_init__(self) -> None:
        highest = int(self.labels.max(initial=0))
        if highest != len(self.classes):
            raise DataError(f"label map: highest id {highest}, but {len(self.classes)} classes; expected ids 1..n")

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Objects:
    """Objects that may overlap: masks (n, H, W) bool, classes (n,) int64 from 0, crowd (n,) bool, ids (n,) int64."""

    masks: Array
    classes: Array
    crowd: Array
    ids: Array

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True)
class Sample:
    """image: (H, W, 3) uint8. truth: a soft mask (H, W) uint8 in 0..255, or Instances, or Objects.

    name: unique in its source; group: what results are averaged by (a tissue), or empty.
    """

    name: str
    image: Array
    truth: Array | Instances | Objects
    group: str = ""

    @property
    def masks(self) -> Array:
        """Every object as (n, H, W) bool; n is 1 for a soft mask."""
        if isinstance(self.truth, Instances):
            ids = np.arange(1, len(self.truth) + 1)
            return np.asarray(self.truth.labels[None] == ids[:, None, None])
        if isinstance(self.truth, Objects):
            return self.truth.masks
        return np.asarray(self.truth > FOREGROUND)[None]


class Source(Protocol):
    """A data set in a fixed order; items are read when asked for. `names` costs no decoding."""

    @property
    def names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def instances_of(labels: Array, classes: Array | None = None) -> Instances:
    """Instances of a label map with any ids >= 0, numbered anew 1..n in rising order.

    classes: (highest id + 1,) class of each old id; None: all 0.
    """
    known, index = np.unique(labels, return_inverse=True)
    if known.size and known[0] < 0:
        raise DataError(f"label map: id {known[0]}, expected ids >= 0")
    # A map without background has no id 0 to start from.
    first = 0 if known.size and known[0] == 0 else 1
    fresh = (index.reshape(labels.shape) + first).astype(np.int32)
    ids = known[known > 0]
    return Instances(fresh, np.zeros(len(ids), np.int64) if classes is None else classes[ids].astype(np.int64))


def split_components(instances: Instances) -> Instances:
    """Every connected piece (8 neighbours) of an id as an instance of its own, of the same class."""
    from skimage.measure import label

    pieces = label(instances.labels, background=0, connectivity=2)
    owner = np.zeros(int(pieces.max(initial=0)) + 1, np.int64)
    owner[pieces.ravel()] = instances.labels.ravel()
    return Instances(pieces.astype(np.int32), instances.classes[owner[1:] - 1])
