"""RL: random labels for D_f, true labels for D_r (SalUn without its mask, arXiv:2310.12508)."""

from collections.abc import Iterator

import torch
from torch import nn

from shared.classification.batches import Chained, random_labels
from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.options import RelabelOptions
from shared.training.device_images import Batch, DeviceImages


def random_label(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: RelabelOptions,
    context: Context,
) -> nn.Module:
    """min E_{D_f, y'} CE(x, y') + E_{D_r} CE(x, y), y' uniform: alternating steps of plain SGD, no
    weighting."""
    context.fit(
        model,
        lambda _, generator: relabelled_epoch(forget, retain, options, generator),
        cross_entropy,
        options,
    )
    return model


def relabelled_epoch(
    forget: DeviceImages, retain: DeviceImages, options: RelabelOptions, generator: torch.Generator
) -> Iterator[Batch]:
    """One epoch over both sets with fresh random labels on D_f, in the order that
    `options.interleave` says."""
    randomised = forget.with_labels(random_labels(forget, generator, exclude_own=options.labels == "other"))
    if not options.retain_term:
        return randomised.batches(options.batch, generator)
    if options.interleave == "mixed":
        return randomised.followed_by(retain).batches(options.batch, generator)
    return Chained(randomised.batches(options.batch, generator), retain.batches(options.batch, generator))
