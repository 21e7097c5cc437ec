"""The images that a class-conditional model is about: one data set, on the device, with the names of its classes."""

from dataclasses import dataclass
from typing import Literal, cast

import torch

from shared.data.images import load_images
from shared.data.pull import pull
from shared.diffusion.world.grey_shapes import CLASSES
from shared.diffusion.world.read import read_grey_shapes
from shared.errors import ConfigError
from shared.training.device_images import Arrays, DeviceImages
from shared.training.options import Augment

GREY_SHAPES = "grey_shapes"


@dataclass(frozen=True)
class ClassImages:
    """images: (N, C, H, W) uint8 with labels; names: of the classes."""

    images: DeviceImages
    names: list[str]

    def of(self, label: int) -> DeviceImages:
        """Images of one class. Raises ConfigError for a class that does not exist."""
        self._check(label)
        return self.images.subset((self.images.labels == label).nonzero()[:, 0])

    def without(self, label: int) -> DeviceImages:
        """Images of all other classes; the number of classes stays. Raises ConfigError for an unknown class."""
        self._check(label)
        return self.images.subset((self.images.labels != label).nonzero()[:, 0])

    def _check(self, label: int) -> None:
        if not 0 <= label < len(self.names):
            raise ConfigError(f"concept: label {label} is none of the {len(self.names)} classes, which count from 0")


def load_classes(
    name: str, part: Literal["train", "test"], device: torch.device | str, *, flip: bool = False
) -> ClassImages:
    """A part of a data set: the grey shapes, or any that `shared.data.images` loads. flip: mirror in batches.

    Raises ConfigError for a data set whose images are not bytes.
    """
    augment = Augment(flip=True) if flip else None
    if name == GREY_SHAPES:
        images, labels = read_grey_shapes(pull(name), part, device)
        return ClassImages(DeviceImages(images, labels, len(CLASSES), augment), list(CLASSES))
    arrays = load_images(name, part)
    found = DeviceImages.from_arrays(cast(Arrays, arrays), device, augment)
    if found.images.dtype != torch.uint8:
        raise ConfigError(f"data '{name}': a diffusion model is trained on bytes, these are {found.images.dtype}")
    return ClassImages(found, list(arrays.class_names))
