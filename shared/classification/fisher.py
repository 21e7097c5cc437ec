"""FF: Fisher forgetting (Golatkar et al., CVPR 2020, arXiv:1911.04933), in the form used on whole networks.

Noise of variance alpha / F on every weight, F the diagonal Fisher information on D_r: what D_r does not need is
blurred. F = mean over D_r of sum_y p(y|x) (grad CE(x, y))^2, all classes y, in eval mode.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from shared.classification.batches import num_batches
from shared.classification.context import Context
from shared.options import Count, NonNegative, Options
from shared.training.device_images import Batch, DeviceImages

Parameters = dict[str, Tensor]


class FisherOptions(Options):
    """alpha: scale of the noise variance. num: images of D_r that make F, drawn at random (None: all).

    gradients: "per_sample" is the Fisher information. "per_batch" (released code) is mean p(y) times the square of a
    batch's *mean* gradient with all labels set to y: wrong labels, with their large gradients, weigh as much as the
    right one, so F is larger and says less about D_r. reset_last_class: when no whole class is forgotten, the released
    code still overwrites the last class's row if D_f has as many images as a class (its trigger is the count, and a
    missing class is index -1); CIFAR-10 with 10 % at random is such a case. average_pruned: under a pruning mask the
    released code averages a filter's variance over its pruned weights too, which have the largest one; False averages
    over the kept ones. at_once: (class, group of images) products held together: memory, not numbers.
    """

    alpha: NonNegative
    num: Count | None = None
    batch: Count = 32
    gradients: Literal["per_sample", "per_batch"] = "per_sample"
    reset_last_class: bool = False
    average_pruned: bool = False
    at_once: Count = 64


def fisher_forgetting(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: FisherOptions,
    context: Context,
) -> nn.Module:
    """theta_u = mu + sqrt(var) N(0, 1). mu is theta_o, but 0 in the last layer's rows of forgotten classes."""
    model.eval()
    generator = context.generator("fisher images")
    images = retain.subset(torch.randperm(len(retain), generator=generator)[: options.num])
    context.count(num_batches(images, options.batch) * retain.num_classes)
    batches = images.batches(options.batch, generator, shuffle=False)
    information = fisher_diagonal(
        model, batches, retain.num_classes, options.gradients == "per_sample", options.at_once
    )
    classes = forgotten_classes(forget, retain)
    if options.reset_last_class and not len(classes):
        classes = torch.tensor([retain.num_classes - 1], device=retain.device)
    noise = context.generator("fisher noise")
    steps = []
    for name, parameter in model.named_parameters():
        kept = (context.mask or {}).get(name)
        last = name.startswith("fc.")
        variance = noise_variance(information[name], last, kept, options)
        step = torch.zeros_like(parameter)
        if last:  # rows of the weight, entries of the bias
            step[classes] -= parameter.detach()[classes]
            variance[classes] = RESET_VARIANCE * LAST_AND_FLAT
        drawn = torch.randn(parameter.shape, generator=noise).to(parameter.device)
        steps.append(step + variance.sqrt() * drawn)
    context.shift(model, steps)
    return model


# Constants of the released code: caps on 1/F, the variance of reset rows, the factor on the last layer and on tensors
# of one dimension (batch norm, biases).
CAP, CAP_LAST, RESET_VARIANCE, LAST_AND_FLAT = 1e3, 1e2, 1e-4, 10.0


def noise_variance(information: Tensor, last: bool, kept: Tensor | None, options: FisherOptions) -> Tensor:
    """Variance of a parameter's noise (its shape), equal within all inputs of an output channel.

    information: diagonal Fisher entries; last: of the last linear layer; kept: its pruning mask.
    """
    if kept is not None:
        information = information * kept.to(information.device)  # a pruned weight is no part of the network
    variance = options.alpha * (1 / (information + 1e-8)).clamp(max=CAP_LAST if last else CAP)
    if variance.ndim > 1:
        weights = torch.ones_like(variance)
        if kept is not None and not options.average_pruned:
            weights = kept.to(variance)
        mean = (variance * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
        variance = mean.expand_as(variance).clone()
    return variance * (LAST_AND_FLAT if last or variance.ndim == 1 else 1.0)


def forgotten_classes(forget: DeviceImages, retain: DeviceImages) -> Tensor:
    """Classes of D_f that D_r has no image of (k,): all of D_f's for class-wise forgetting, none for random."""
    mine, others = (torch.bincount(side.labels, minlength=side.num_classes) for side in (forget, retain))
    return ((mine > 0) & (others == 0)).nonzero()[:, 0]


def fisher_diagonal(
    model: nn.Module, batches: Iterable[Batch], num_classes: int, per_sample: bool, at_once: int
) -> Parameters:
    """F by parameter name: mean over groups of sum_y mean p(y|x) (gradient of the group's mean CE with label y)^2.

    A group is one image (per_sample: the Fisher information) or a batch. One forward pass serves all classes, whose
    backward passes run as one batched product.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    classes = torch.arange(num_classes, device=next(model.parameters()).device)

    def of_group(images: Tensor) -> Parameters:
        logits, pull_back, *_ = vjp(lambda values: functional_call(model, values, (images,)), parameters)
        probabilities = logits.softmax(1)  # (B, C)
        total: Parameters = {}
        for some in classes.split(at_once):
            # Gradient of mean CE(., y) by the logits, for each y: (k, B, C).
            directions = (probabilities - F.one_hot(some, num_classes)[:, None]) / len(images)
            gradients: Parameters = vmap(lambda direction: pull_back(direction)[0])(directions)
            weights = probabilities[:, some].mean(0)
            for name, gradient in gradients.items():
                part = torch.tensordot(weights, gradient.square(), 1)
                total[name] = total[name] + part if name in total else part
        return total

    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    num_groups = 0
    with torch.no_grad():
        for batch in batches:
            # (groups, images of a group, C, H, W)
            groups = batch.images[:, None] if per_sample else batch.images[None]
            num_groups += len(groups)
            for some in groups.split(max(1, at_once // num_classes)):
                for name, part in vmap(of_group)(some).items():
                    sums[name] += part.sum(0)
    return {name: value / num_groups for name, value in sums.items()}
