"""One thread, and small models whose weights are not zero anywhere."""

import pytest
import torch

from papers.diffews.options import FineTuning, Pretraining, SmallUnet
from papers.diffews.training import build

SMALL = Pretraining(side=32, unet=SmallUnet(channels=[8, 16], groups=4))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(seed=0, **options):
    """An untrained network with the small U-Net."""
    return build(None, FineTuning(**{"start": SMALL, "side": 32, **options}), seed).eval()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def make():
    return model_of


@pytest.fixture(scope="session")
def normal():
    return random
