"""A task's images on the device: loaded once a process, cut into D_f, D_r and the unseen images for
each seed."""

import functools
import json
from dataclasses import dataclass, replace
from typing import cast

import torch

from shared.classification.splits import Split, make_split
from shared.classification.task import DataSpec, ForgetSpec, PoisonSpec
from shared.data.images import load_images
from shared.errors import ConfigError
from shared.training.device_images import Arrays, DeviceImages
from shared.training.options import Augment


@dataclass(frozen=True)
class Images:
    """Training and test file of a data set, in file order, on the device."""

    train: DeviceImages
    test: DeviceImages

    @property
    def num_channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])


@dataclass(frozen=True)
class Sides:
    """The images of one seed. forget, retain: with the training augmentation; validation, test,
    test_forgotten (test images of the forgotten classes, maybe none): without."""

    forget: DeviceImages
    retain: DeviceImages
    validation: DeviceImages
    test: DeviceImages
    test_forgotten: DeviceImages


def load(spec: DataSpec, device: torch.device) -> Images:
    """The data set of a task; a second call in the same process costs nothing."""
    return _load(
        json.dumps({"name": spec.name, "loader": spec.loader}, sort_keys=True),
        spec.augment,
        str(device),
    )


@functools.lru_cache(maxsize=2)
def _load(key: str, augment: Augment, device: str) -> Images:
    spec = json.loads(key)
    train, test = (cast(Arrays, load_images(spec["name"], split, **spec["loader"])) for split in ("train", "test"))
    return Images(
        DeviceImages.from_arrays(train, device, augment if augment.pad or augment.flip else None),
        DeviceImages.from_arrays(test, device),
    )


def sides(images: Images, spec: DataSpec, forget: ForgetSpec | None, seed: int) -> Sides:
    """Cut the images for one seed. Raises ConfigError for a class that does not exist."""
    train, test = (side.labels.cpu().numpy() for side in (images.train, images.test))
    return _cut(images, make_split(train, test, spec, forget, seed, images.train.num_classes))


def poisoned(sides: Sides, poison: PoisonSpec | None) -> Sides:
    """The same with the backdoor in D_f: trigger and target label."""
    return sides if poison is None else replace(sides, forget=stamped(sides.forget, poison))


def stamped(images: DeviceImages, poison: PoisonSpec) -> DeviceImages:
    """A copy whose images carry the trigger and whose labels are the target. Raises ConfigError if it does not fit."""
    height, width = images.images.shape[2:]
    trigger = poison.trigger
    rows, columns = (_span(start, trigger.size, n) for start, n in ((trigger.row, height), (trigger.column, width)))
    if rows is None or columns is None or poison.target >= images.num_classes:
        raise ConfigError(
            f"poison: a trigger of {trigger.size} pixels at ({trigger.row}, {trigger.column}) with target "
            f"{poison.target} does not fit {height} x {width} images of {images.num_classes} classes"
        )
    pixels = images.images.clone()
    pixels[:, :, rows, columns] = trigger.value * 255 if pixels.dtype == torch.uint8 else trigger.value
    return replace(images, images=pixels, labels=torch.full_like(images.labels, poison.target))


def _span(start: int, size: int, length: int) -> slice | None:
    first = start + length if start < 0 else start
    return slice(first, first + size) if 0 <= first <= length - size else None


def _cut(images: Images, split: Split) -> Sides:
    held_out = images.train if split.validation_source == "train" else images.test
    return Sides(
        forget=images.train.subset(split.forget),
        retain=images.train.subset(split.retain),
        validation=held_out.subset(split.validation).without_augmentation(),
        test=images.test.subset(split.test),
        test_forgotten=images.test.subset(split.test_forgotten),
    )
