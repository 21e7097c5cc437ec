"""One thread, the small backbone, and its images."""

import pytest
import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.options import SIZES

SMALL = SIZES["small"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def options_with(**changes):
    """The small options with other values, checked."""
    return type(SMALL)(**(SMALL.model_dump() | changes))


@pytest.fixture
def changed():
    return options_with


@pytest.fixture
def images():
    """Two images of 64 x 64, the second one with content in 40 x 56 pixels only, and their sizes."""
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    pixels[1, :, 40:] = 0
    pixels[1, :, :, 56:] = 0
    return pixels, torch.tensor([[64, 64], [40, 56]])


@pytest.fixture
def backbone():
    return MimDet(SMALL)
