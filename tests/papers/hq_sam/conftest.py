"""One thread, and models whose position tables are not zero: with zeros, half of the attention is not tested."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def spread_parameters(model, seed=0):
    """Move every parameter away from its initial zero or one; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def spread():
    return spread_parameters


@pytest.fixture(scope="session")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
