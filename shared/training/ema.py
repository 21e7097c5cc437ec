"""Exponential moving average of weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Average of a model's parameters after every step: ema = decay * ema + (1 - decay) *
    parameter.

    `model` is an evaluation copy that holds the average, started from the weights given; its
    buffers (batch-norm statistics) follow the trained model's. decay in [0, 1): 0 is the model
    itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average of weights lies in [0, 1), not {decay}")
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged: list[Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of the trained model; the training loop calls it after every step."""
        current = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(self._averaged, current, 1 - self.decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Weights of the average, for a checkpoint."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.model.load_state_dict(state)
