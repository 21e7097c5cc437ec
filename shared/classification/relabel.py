"""RL: random labels for D_f, true labels for D_r (SalUn without its mask, arXiv:2310.12508)."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from shared.classification.batches import Chained, random_labels
from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.options import RelabelOptions
from shared.classification.stopping import forgotten
from shared.training.device_images import Batch, DeviceImages
from shared.training.loop import Stop


class StoppedRelabelOptions(RelabelOptions):
    """stop_below: in %; `epochs` is the most there are: the run ends with the first epoch after which the accuracy on
    D_f (true labels) is below it."""

    stop_below: Annotated[float, Field(gt=0, le=100)]


def random_label(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: RelabelOptions,
    context: Context,
    stop: Stop | None = None,
) -> nn.Module:
    """min E_{D_f, y'} CE(x, y') + E_{D_r} CE(x, y), y' uniform: alternating steps of plain SGD, no
    weighting."""
    context.fit(
        model,
        lambda _, generator: relabelled_epoch(forget, retain, options, generator),
        cross_entropy,
        options,
        stop=stop,
    )
    return model


def random_label_stopped(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: StoppedRelabelOptions,
    context: Context,
) -> nn.Module:
    """RL until D_f is forgotten; on D_f alone (`retain_term: false`) it soon destroys the rest of the network."""
    return random_label(model, forget, retain, options, context, stop=forgotten(forget, options.stop_below))


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
