"""SalUn (Fan et al., ICLR 2024, arXiv:2310.12508): move only the weights that matter to D_f's loss.

theta_u = m * (delta + theta_o) + (1 - m) * theta_o, with the mask m = 1(|g| >= gamma) of the forget
loss's gradient g at theta_o.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from shared.classification.batches import num_batches
from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.masks import Mask
from shared.classification.options import RelabelOptions
from shared.classification.relabel import random_label, relabelled_epoch
from shared.imports import import_path
from shared.options import Count, Fraction, Options
from shared.training.device_images import DeviceImages
from shared.training.ranking import largest
from shared.training.state import LoopState


class SalunOptions(RelabelOptions):
    """keep: q, the share of weights that may move (0.5: the median gradient is the threshold).

    mask: "saliency" is the paper; "random" draws as many weights blindly (the ablation of the
    mask). mask_decay_leak: False is the paper's equation. True is the released code until February
    2026, which made the published numbers: only gradients were masked, so weight decay and its
    momentum still moved masked-out weights. mask_batch: batch of the gradient pass. The batches'
    *mean* gradients are added, so a last, smaller batch weighs more per image.
    """

    keep: Fraction = 0.5
    mask: Literal["saliency", "random"] = "saliency"
    mask_decay_leak: bool = False
    mask_batch: Count = 256


class SalunSoftOptions(RelabelOptions):
    """mask_ratio: rho, the share of weights that snap back at the first step; it falls linearly to
    0 over the epochs.

    anchor: "epoch" (released code): weights are pulled to where they were at the epoch's start, so
    they can drift; "original": to theta_o, as the paper's |theta - theta_o|_1 says.
    interleave: the released code is "mixed" on CIFAR and Tiny ImageNet, "sequential" on SVHN, where
    the share also falls within the retain half of an epoch.
    """

    interleave: Literal["sequential", "mixed"] = "mixed"
    mask_ratio: Fraction
    anchor: Literal["epoch", "original"] = "epoch"


class MaskedOptions(Options):
    """Another method under a weight mask (the ablation of Table 2).

    base: a key of the classification METHODS; base_options: its own options; the others as in
    SalunOptions.
    """

    base: str
    base_options: dict[str, Any] = {}
    mask: Literal["saliency", "random"] = "saliency"
    keep: Fraction = 0.5
    mask_decay_leak: bool = False
    mask_batch: Count = 256

    @model_validator(mode="after")
    def _base_is_known(self) -> "MaskedOptions":
        from shared.classification.protocol import METHODS
        from shared.errors import ConfigError, nearest
        from shared.options import parse_options

        if self.base not in METHODS:
            raise ValueError(f"base '{self.base}' is not a method{nearest(self.base, list(METHODS))}")
        try:
            parse_options(METHODS[self.base], self.base_options)
        except ConfigError as error:
            raise ValueError(f"base_options: {error}") from None
        return self


def salun(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: SalunOptions,
    context: Context,
) -> nn.Module:
    """min E_{D_f, y'} CE(x, y') + E_{D_r} CE(x, y) over the weights of the saliency mask: RL under
    the mask."""
    mask = weight_mask(model, forget, options, context)
    return random_label(model, forget, retain, options, context.with_mask(mask, options.mask_decay_leak))


def salun_soft(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: SalunSoftOptions,
    context: Context,
) -> nn.Module:
    """min RL loss + beta |theta - theta_o|_1 by proximal gradient: a soft threshold around the
    anchor at each step."""
    proximal = Proximal(model, forget, retain, options)
    context.fit(
        model,
        lambda _, generator: relabelled_epoch(forget, retain, options, generator),
        cross_entropy,
        options,
        on_epoch_start=proximal.on_epoch_start,
        after_step=proximal.after_step,
        stateful={"proximal": proximal},
    )
    return model


def masked(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: MaskedOptions,
    context: Context,
) -> nn.Module:
    """Any baseline, moving only masked weights: does the mask help FT, RL, GA and IU too, and is it
    the gradient that matters or only the number of weights?"""
    from shared.classification.protocol import METHODS
    from shared.options import parse_options

    mask = weight_mask(model, forget, options, context)
    base = import_path(METHODS[options.base])
    base_options = parse_options(METHODS[options.base], options.base_options)
    unlearned: nn.Module = base(model, forget, retain, base_options, context.with_mask(mask, options.mask_decay_leak))
    return unlearned


def weight_mask(
    model: nn.Module, forget: DeviceImages, options: SalunOptions | MaskedOptions, context: Context
) -> Mask:
    """The mask that the options ask for."""
    if options.mask == "random":
        return random_mask(model, options.keep, context)
    return saliency_mask(model, forget, options.keep, options.mask_batch, context)


def saliency_mask(model: nn.Module, forget: DeviceImages, keep: float, batch: int, context: Context) -> Mask:
    """m_S: True for the int(keep * n) weights with the largest |gradient| of the forget loss,
    ranked over all layers.

    One pass over D_f in eval mode with the training augmentation. The batches' gradients are added
    with their sign; the absolute value comes after the pass.
    """
    model.eval()
    model.zero_grad(set_to_none=True)
    for images in forget.batches(batch, context.generator("saliency mask")):
        (-F.cross_entropy(model(images.images), images.labels)).backward()
    context.count(num_batches(forget, batch))
    parameters = {name: p for name, p in model.named_parameters() if p.grad is not None}
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).abs_()
    model.zero_grad(set_to_none=True)
    return _as_mask(largest(flat, int(keep * flat.numel())), parameters)


def random_mask(model: nn.Module, keep: float, context: Context) -> Mask:
    """int(keep * n) weights drawn at random, without regard to layers. Masks of one seed nest like
    the gradient's."""
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    order = torch.randperm(total, generator=context.generator("random mask"))
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[: int(keep * total)]] = True
    return _as_mask(chosen.to(context.device), parameters)


def _as_mask(flat: Tensor, like: dict[str, Any]) -> Mask:
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


class Proximal:
    """Soft threshold after every step: the k weights closest to the anchor return to it, the others
    come closer by the distance of the k-th. k = int(mask_ratio * (T - s) / T * n), T the steps of
    the run, s the current one (from 1)."""

    def __init__(
        self,
        model: nn.Module,
        forget: DeviceImages,
        retain: DeviceImages,
        options: SalunSoftOptions,
    ) -> None:
        self._options = options
        self._parameters = list(model.parameters())
        self._num_forget = num_batches(forget, options.batch)
        # Both loaders' lengths, also for the mixed stream, whose own length can be one less.
        self._epoch_length = self._num_forget + num_batches(retain, options.batch)
        self._anchors = [p.detach().clone() for p in self._parameters]

    def on_epoch_start(self, state: LoopState) -> None:
        """Re-read the anchor, if it is the epoch's."""
        if self._options.anchor == "epoch":
            self._anchors = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def after_step(self, state: LoopState) -> None:
        """theta := anchor + soft(theta - anchor, lambda)."""
        distances = torch.cat([(p - a).flatten() for p, a in zip(self._parameters, self._anchors, strict=True)]).abs_()
        num = self.num_snapped(state.epoch, state.step_in_epoch, distances.numel())
        # The released code crashes when k reaches 0: no weight has to return, so nothing shrinks.
        threshold = distances.kthvalue(num).values if num else distances.new_zeros(())
        del distances
        for p, anchor in zip(self._parameters, self._anchors, strict=True):
            near = torch.where(p - anchor < -threshold, p + threshold, anchor)
            p.copy_(torch.where(p - anchor > threshold, p - threshold, near))

    def num_snapped(self, epoch: int, step_in_epoch: int, num_weights: int) -> int:
        """k at a step; constant within an epoch, except in the retain half of a sequential one."""
        total = self._options.epochs * self._epoch_length
        step = epoch * self._epoch_length + 1
        if self._options.interleave == "sequential" and step_in_epoch >= self._num_forget:
            step += step_in_epoch - self._num_forget
        return max(0, math.floor(self._options.mask_ratio * ((total - step) / total * num_weights)))

    def state_dict(self) -> dict[str, Any]:
        """The anchor, for a checkpoint."""
        return {"anchors": self._anchors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._anchors = [a.to(p.device) for a, p in zip(state["anchors"], self._parameters, strict=True)]
