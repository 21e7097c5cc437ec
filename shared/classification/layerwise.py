"""Unlearning in the last layers only: CF-k and EU-k (Goel et al. 2022)."""

import torch
from torch import nn

from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.masks import Mask
from shared.classification.options import SgdOptions
from shared.errors import UserError
from shared.options import Count
from shared.training.device_images import DeviceImages


class LastLayersOptions(SgdOptions):
    """num_layers: k, counted in convolutions and linear layers from the output; a batch norm
    belongs to the layer before it."""

    num_layers: Count


def cf_k(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: LastLayersOptions,
    context: Context,
) -> nn.Module:
    """Catastrophic forgetting: fine-tune the last k layers on D_r, the others keep their
    weights."""
    _train_last(model, retain, options, context)
    return model


def eu_k(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: LastLayersOptions,
    context: Context,
) -> nn.Module:
    """Exact unlearning of the last k layers: re-initialise them, train them on D_r, the others keep
    their weights."""
    mask = last_layers(model, options.num_layers)
    fresh = context.fresh_model("reinitialised layers")
    reinitialised = {name for name, part in mask.items() if part.any()}
    with torch.no_grad():
        for (name, weights), new in zip(model.named_parameters(), fresh.parameters(), strict=True):
            if name in reinitialised:
                weights.copy_(new)
    _train_last(model, retain, options, context)
    return model


def _train_last(model: nn.Module, retain: DeviceImages, options: LastLayersOptions, context: Context) -> None:
    context.with_mask(last_layers(model, options.num_layers)).fit(
        model, lambda _, generator: retain.batches(options.batch, generator), cross_entropy, options
    )


def last_layers(model: nn.Module, num_layers: int) -> Mask:
    """True for the parameters of the last `num_layers` convolutions and linear layers, in
    definition order."""
    owners = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if num_layers > len(owners):
        raise UserError(f"num_layers {num_layers}: the model has {len(owners)} convolutions and linear layers")
    names = [name for name, _ in model.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.rpartition(".")[0] == owners[-num_layers])
    return {
        name: torch.full_like(weights, i >= first, dtype=torch.bool)
        for i, (name, weights) in enumerate(model.named_parameters())
    }
