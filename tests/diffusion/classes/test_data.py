"""Images of class-conditional models: loaded, cut by class."""

import numpy as np
import pytest
import torch

from shared.data.images import ImageArrays
from shared.diffusion.classes.data import load_classes
from shared.errors import ConfigError


def test_grey_shapes_by_class():
    data = load_classes("grey_shapes", "train", "cpu")
    assert data.names == ["square", "disc", "cross", "triangle"]
    assert data.images.images.shape == (40, 1, 12, 12)
    assert data.of(2).labels.tolist() == [2] * 10
    others = data.without(2)
    assert sorted(set(others.labels.tolist())) == [0, 1, 3]
    assert (len(others), others.num_classes, others.augment) == (30, 4, None)
    assert len(load_classes("grey_shapes", "test", "cpu").images) == 8


def test_flip_is_for_batches_alone():
    data = load_classes("grey_shapes", "train", "cpu", flip=True)
    plain = load_classes("grey_shapes", "train", "cpu")
    assert torch.equal(data.images.images, plain.images.images)
    assert data.of(0).augment.flip


def test_a_class_that_does_not_exist():
    with pytest.raises(ConfigError, match="label 4 is none of the 4 classes"):
        load_classes("grey_shapes", "train", "cpu").without(4)


def images(kind):
    return lambda name, part: ImageArrays(np.zeros((6, 4, 4, 3), kind), np.arange(6) % 2, ["a", "b"])


def test_other_data_sets_come_from_the_image_loaders(monkeypatch):
    monkeypatch.setattr("shared.diffusion.classes.data.load_images", images(np.uint8))
    data = load_classes("cifar10", "train", "cpu", flip=True)
    assert data.images.images.shape == (6, 3, 4, 4)
    assert data.names == ["a", "b"]
    monkeypatch.setattr("shared.diffusion.classes.data.load_images", images(np.float32))
    with pytest.raises(ConfigError, match="trained on bytes"):
        load_classes("digits", "train", "cpu")
