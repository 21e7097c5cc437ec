"""Learning rates and weight decay by parameter (section 4.1 of the paper, and its released code)."""

from typing import Any

import torch
from torch import nn

from papers.mimdet.options import RateOptions
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions


def part_of(name: str) -> str:
    """Which group a parameter belongs to: `stem`, the rest of the `encoder`, or `others`."""
    words = name.split(".")
    if "encoder" not in words:
        return "others"
    return "stem" if words[words.index("encoder") + 1] == "patch_embed" else "encoder"


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to vectors, biases and norms."""
    return parameter.ndim > 1 and not name.endswith(".bias") and "norm" not in name


def mimdet_groups(model: nn.Module, lr: float, weight_decay: float, rates: RateOptions) -> list[dict[str, Any]]:
    """Parameter groups of a detector with a MIMDet backbone, each with its `name`, lr and weight_decay."""
    factors = {"stem": 1.0, "encoder": 1 / rates.multiplier, "others": rates.multiplier}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, decay = part_of(name), decays(name, parameter)
        key = f"{part}, {'decay' if decay else 'no decay'}"
        group = {"name": key, "params": [], "lr": lr * factors[part], "weight_decay": weight_decay if decay else 0.0}
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())


def benchmarking_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of the baseline: one rate; no decay of norms and relative positions (biases do decay)."""
    norms = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.SyncBatchNorm)
    spared = {
        id(p) for module in model.modules() if isinstance(module, norms) for p in module.parameters(recurse=False)
    }
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts[id(parameter) not in spared and "relative_position_bias_table" not in name].append(parameter)
    return [
        {"name": "decay" if decay else "no decay", "params": found, "lr": lr, "weight_decay": weight_decay * decay}
        for decay, found in parts.items()
        if found
    ]


def grouped_optimizer(
    model: nn.Module, options: OptimizerOptions, groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimizer that `options` describe, with these groups in place of one."""
    optimizer = make_optimizer(model.parameters(), options)
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)
    return optimizer
