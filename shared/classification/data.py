"""A task's images on the device: loaded once a process, cut into D_f, D_r and the unseen images for
each seed."""

import functools
import json
from dataclasses import dataclass
from typing import cast

import torch

from shared.classification.protocol import DataSpec, ForgetSpec
from shared.classification.splits import Split, make_split
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
    test_forgotten (test images of the forgotten class, maybe none): without."""

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
    num_classes = images.train.num_classes
    if forget is not None and forget.class_index is not None and forget.class_index >= num_classes:
        raise ConfigError(
            f"data '{spec.name}': forget.class_index {forget.class_index} does not exist, "
            f"the last class is {num_classes - 1}"
        )
    split = make_split(images.train.labels.cpu().numpy(), images.test.labels.cpu().numpy(), spec, forget, seed)
    return _cut(images, split)


def _cut(images: Images, split: Split) -> Sides:
    held_out = images.train if split.validation_source == "train" else images.test
    return Sides(
        forget=images.train.subset(split.forget),
        retain=images.train.subset(split.retain),
        validation=held_out.subset(split.validation).without_augmentation(),
        test=images.test.subset(split.test),
        test_forgotten=images.test.subset(split.test_forgotten),
    )
