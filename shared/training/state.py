"""What a running training shows to its hooks and keeps in its checkpoint."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Stateful(Protocol):
    """What a hook remembers from step to step: tensors and plain values out, the same in."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""


@dataclass(slots=True)
class LoopState:
    """What hooks see. epoch and step_in_epoch count from 0; step counts the finished optimizer
    steps of the run.

    model: the bare network, never a wrapper. batch, loss: the total batch of the step at hand and
    its loss, detached (with several processes: this process's part of it). steps_per_epoch: None
    while the epoch's batches have no length. loss_sum: over the epoch's finished steps. history:
    one dict a finished epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    generator: torch.Generator
    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    steps_per_epoch: int | None = None
    batch: Any = None
    loss: Tensor | None = None
    loss_sum: Tensor | float = 0.0
    history: list[dict[str, float | None]] = field(default_factory=list)
