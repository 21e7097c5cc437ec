"""One thread, and models whose position tables are not zero: with zeros, half of the attention is not tested."""

import pytest
import torch

from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def spread(model, seed=0):
    """Move every parameter away from its initial zero or one; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture
def randomise():
    return spread


@pytest.fixture(scope="module")
def small():
    """64-pixel SAM with 8x8 tokens, windows and two global blocks."""
    return spread(build_sam(SIZES["small_patch8"], seed=0))


@pytest.fixture(scope="module")
def images():
    """Three images in 0..255."""
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
