"""l1-sparse unlearning (Jia et al., NeurIPS 2023, arXiv:2304.04934): fine-tune on D_r towards
sparse weights."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.options import SgdOptions
from shared.options import NonNegative
from shared.training.device_images import Batch, DeviceImages


class L1SparseOptions(SgdOptions):
    """gamma: weight of the penalty, in [1e-6, 1e-4] for the tables. schedule: "decaying" falls
    linearly to 0 over the epochs (the paper's best), "growing" rises, "constant" stays."""

    gamma: NonNegative
    schedule: Literal["decaying", "constant", "growing"] = "decaying"


def l1_sparse(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: L1SparseOptions,
    context: Context,
) -> nn.Module:
    """min CE(D_r) + gamma_t |theta|_1 over all parameters, batch norm and biases included, by
    subgradients."""
    weight = 0.0

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        nonlocal weight
        weight = l1_weight(options, number)
        return retain.batches(options.batch, generator)

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        penalty = torch.stack([p.abs().sum() for p in model.parameters()]).sum()
        return F.cross_entropy(net(batch.images), batch.labels) + weight * penalty

    context.fit(model, epoch, loss, options)
    return model


def l1_weight(options: L1SparseOptions, epoch: int) -> float:
    """gamma_t of an epoch (from 0): gamma (1 - epoch / E) when decaying."""
    done = epoch / options.epochs
    factor = {"decaying": 1 - done, "constant": 1.0, "growing": done}[options.schedule]
    return options.gamma * factor
