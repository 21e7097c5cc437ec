"""Optimizers from their typed settings."""

from collections.abc import Iterable

import torch
from torch import nn

from shared.training.options import OptimizerOptions


def make_optimizer(
    params: Iterable[nn.Parameter], options: OptimizerOptions
) -> torch.optim.Optimizer:
    """The optimizer that `options` describes, over the parameters that require a gradient."""
    trainable = [parameter for parameter in params if parameter.requires_grad]
    if options.kind == "sgd":
        return torch.optim.SGD(
            trainable,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.nesterov,
            fused=_can_fuse(trainable),
        )
    adam = torch.optim.Adam if options.kind == "adam" else torch.optim.AdamW
    return adam(
        trainable,
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=_can_fuse(trainable),
    )


def _can_fuse(params: list[nn.Parameter]) -> bool:
    # One kernel for all weights: a step of SGD on the small networks of the CPU runs takes a third
    # of the plain optimizer's time.
    return bool(params) and all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params
    )
