"""A small task: 3 classes of 8x8 pictures, the mini network, a context without disk."""

import copy

import pytest
import torch

from shared.classification.context import Context
from shared.models.build import build
from shared.training.device_images import DeviceImages

torch.set_num_threads(1)
CPU = torch.device("cpu")


def make_images(num: int, seed: int, num_classes: int = 3) -> DeviceImages:
    """Noisy pictures whose brightest third tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_classes
    pictures = 0.5 * torch.rand((num, 1, 8, 8), generator=generator)
    for label in range(num_classes):
        pictures[labels == label, :, :, 2 * label : 2 * label + 2] += 0.4
    return DeviceImages(pictures, labels, num_classes)


def make_context(seed: int = 0, num_classes: int = 3, **changes) -> Context:
    def network(weights_seed: int):
        return build("tiny_cnn", num_classes, 1, seed=weights_seed)

    return Context(CPU, seed, num_classes, network, lambda name: (network(99), None), **changes)


@pytest.fixture(scope="session")
def trained():
    """A network trained for a moment, so that gradients on its data are small but not zero."""
    from shared.classification.finetune import cross_entropy
    from shared.classification.options import SgdOptions

    model = build("tiny_cnn", 3, 1, seed=1)
    data = make_images(90, seed=0)
    make_context().fit(
        model,
        lambda _, generator: data.batches(16, generator),
        cross_entropy,
        SgdOptions(lr=0.05, epochs=4),
    )
    return model


@pytest.fixture
def model(trained):
    """A copy that a test may change."""
    return copy.deepcopy(trained)


@pytest.fixture
def forget():
    return make_images(90, seed=0).subset(range(30))


@pytest.fixture
def retain():
    return make_images(90, seed=0).subset(range(30, 90))


@pytest.fixture
def context():
    return make_context()


@pytest.fixture
def new_context():
    return make_context
