import pytest
import torch
from torch import nn

from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions

CASES = {
    "sgd": (
        OptimizerOptions(lr=0.1, momentum=0.9, weight_decay=5e-4),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=5e-4, fused=False, foreach=False),
    ),
    "nesterov": (
        OptimizerOptions(lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, fused=False, foreach=False),
    ),
    "adam": (
        OptimizerOptions(kind="adam", lr=1e-2, betas=(0.8, 0.99), weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 1e-2, betas=(0.8, 0.99), weight_decay=0.1, fused=False, foreach=False),
    ),
    "adamw": (
        OptimizerOptions(kind="adamw", lr=1e-2, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1, fused=False, foreach=False),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_torchs_plain_optimizer(name):
    options, plain = CASES[name]
    weights = []
    for make in (lambda p: make_optimizer(p, options), plain):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = make(layer.parameters())
        for _ in range(4):
            optimizer.zero_grad()
            layer(torch.ones(5, 3)).square().mean().backward()
            optimizer.step()
        weights.append(layer.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_foreign_memory_layout_does_not_mix_up_weights(name):
    options, plain = CASES[name]
    weights = []
    for make in (lambda p: make_optimizer(p, options), plain):
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(8, 4, 3, 3, generator=generator)
        weight = nn.Parameter(start.to(memory_format=torch.channels_last))
        optimizer = make([weight])
        for step in range(4):
            # what a hook may do: a gradient, or a momentum, in the default layout
            weight.grad = torch.randn(8, 4, 3, 3, generator=generator)
            if step == 2:
                state = optimizer.state[weight]
                optimizer.state[weight] = {key: value.contiguous() for key, value in state.items()}
            optimizer.step()
        weights.append(weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    optimizer = make_optimizer(layer.parameters(), OptimizerOptions(lr=0.1))
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2, 3)]
    layer.requires_grad_(False)
    with pytest.raises(ValueError):
        make_optimizer(layer.parameters(), OptimizerOptions(lr=0.1))
