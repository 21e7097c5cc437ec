"""Pictures at a model's size, aspect not kept: read when asked for, or all of a small set at once on the device."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shared.errors import DataError
from shared.segmentation.resize import resize, resize_image
from shared.segmentation.samples import FOREGROUND, Array, Instances, Sample, Source


class Rows(NamedTuple):
    """B pictures. images: (B, 3, S, S) uint8. labels: (B, S, S), soft masks uint8, or ids of instances int32.

    ids: the ids of each picture, int64, rising; a soft mask is number 1.
    """

    images: Tensor
    labels: Tensor
    ids: list[Array]


@dataclass(frozen=True)
class FittedPictures:
    """A source whose samples have a soft mask or instances, resized to `size` pixels a side when asked for."""

    source: Source
    size: int

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_bytes(self) -> int:
        """Upper bound of what all of them take: three bytes a pixel for the image, four for the labels."""
        return len(self) * self.size**2 * 7

    def rows(self, positions: Array) -> Rows:
        """The pictures at some positions. Raises DataError for one without any object."""
        images, labels, ids = [], [], []
        for position in positions:
            sample = self.source[int(position)]
            images.append(resize_image(sample.image, (self.size, self.size)).transpose(2, 0, 1))
            labels.append(_labels(sample, self.size))
            ids.append(_ids(sample.name, labels[-1]))
        return Rows(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), ids)


class HeldPictures:
    """All pictures of a small set, decoded once."""

    def __init__(self, pictures: FittedPictures, device: torch.device | str) -> None:
        images, labels, self._ids = pictures.rows(np.arange(len(pictures)))
        self._images, self._labels = images.to(device), labels.to(device)

    def rows(self, positions: Array) -> Rows:
        """The pictures at some positions."""
        chosen = torch.from_numpy(positions).to(self._images.device)
        return Rows(self._images[chosen], self._labels[chosen], [self._ids[int(p)] for p in positions])


def _labels(sample: Sample, size: int) -> Array:
    truth = sample.truth
    if isinstance(truth, Instances):
        # an id has no value between two others: the nearest pixel's
        rows, columns = (((np.arange(size) + 0.5) * side / size).astype(np.int64) for side in truth.labels.shape)
        return truth.labels[np.ix_(rows, columns)]
    if not isinstance(truth, np.ndarray):
        raise DataError(f"{sample.name}: objects that may overlap; this training takes a soft mask or a label map")
    return resize(truth, (size, size)).round().astype(np.uint8)


def _ids(name: str, labels: Array) -> Array:
    if labels.dtype == np.uint8:
        found = np.ones(int((labels > FOREGROUND).any()), np.int64)
    else:
        found = np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1
    if not len(found):
        raise DataError(f"{name}: no object at {len(labels)} pixels a side; leave this image out of the training set")
    return found
