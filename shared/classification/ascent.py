"""Unlearning by climbing the loss of D_f: GA and NegGrad+."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from shared.classification.batches import Marked, endless, num_batches
from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.options import SgdOptions
from shared.classification.stopping import forgotten
from shared.options import Count, Fraction
from shared.training.device_images import DeviceImages


class AscentOptions(SgdOptions):
    """GA's published setting: 5 epochs, lr around 1e-4.

    stop_below: in %; `epochs` is then the most there are: the run ends with the first epoch after
    which the accuracy on D_f is below it. None: all epochs.
    """

    epochs: Count = 5
    stop_below: Annotated[float, Field(gt=0, le=100)] | None = None


class NegGradPlusOptions(SgdOptions):
    """retain_weight: a of NegGrad+, tuned between 0.95 and 0.9999 in the SCRUB code (recalled)."""

    retain_weight: Fraction


def gradient_ascent(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: AscentOptions,
    context: Context,
) -> nn.Module:
    """GA (NegGrad): descend -CE on D_f alone."""
    context.fit(
        model,
        lambda _, generator: forget.batches(options.batch, generator),
        lambda net, batch: -cross_entropy(net, batch),
        options,
        stop=forgotten(forget, options.stop_below),
    )
    return model


def neggrad_plus(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: NegGradPlusOptions,
    context: Context,
) -> nn.Module:
    """NegGrad+ (Kurmanji et al.): a CE(D_r) - (1 - a) CE(D_f), a pair of batches a step, D_f in a
    cycle."""
    context.fit(
        model,
        lambda _, generator: Pairs(forget, retain, options.batch, options.retain_weight, generator),
        paired_loss,
        options,
    )
    return model


class Pairs(Iterator[Marked]):
    """zip(retain, cycle(forget)): each item holds both batches, weighted so that the mean over all
    its samples is a * mean over the retain part - (1 - a) * mean over the forget part."""

    def __init__(
        self,
        forget: DeviceImages,
        retain: DeviceImages,
        batch: int,
        retain_weight: float,
        generator: torch.Generator,
    ) -> None:
        self._retain, self._forget = (
            retain.batches(batch, generator),
            endless(forget, batch, generator),
        )
        self._weight, self._num = retain_weight, num_batches(retain, batch)

    def __len__(self) -> int:
        return self._num

    def __next__(self) -> Marked:
        retained, forgotten = next(self._retain), next(self._forget)
        sizes = len(retained.labels), len(forgotten.labels)
        values = torch.tensor([self._weight / sizes[0], (self._weight - 1) / sizes[1]]) * sum(sizes)
        repeats = torch.tensor(sizes)
        device = retained.labels.device
        return Marked(
            torch.cat([retained.images, forgotten.images]),
            torch.cat([retained.labels, forgotten.labels]),
            torch.tensor([False, True]).repeat_interleave(repeats).to(device),
            values.repeat_interleave(repeats).to(device),
        )


def paired_loss(model: nn.Module, batch: Marked) -> Tensor:
    """Weighted cross-entropy. Each part has a forward pass of its own: batch norm must not mix D_f
    into D_r."""
    total = batch.weight.new_zeros(())
    for part in (~batch.forget, batch.forget):
        if part.any():
            losses = F.cross_entropy(model(batch.images[part]), batch.labels[part], reduction="none")
            total = total + (batch.weight[part] * losses).sum()
    return total / len(batch.labels)
