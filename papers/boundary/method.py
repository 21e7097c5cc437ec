"""Boundary Unlearning (Chen et al., CVPR 2023, arXiv:2303.11570): move the decision boundary, not
the parameters.

After retraining without a class its images fall into neighbouring classes; both methods imitate
that with D_f alone.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.distillation import frozen_copy
from shared.classification.options import SgdOptions
from shared.options import NonNegative
from shared.training.device_images import Batch, DeviceImages
from shared.training.state import LoopState


class ShrinkOptions(SgdOptions):
    """epsilon: bound of the attack in pixel units ([0, 1]).

    clip: range of attacked pixels: "unit" = [0, 1]; "data" = [min, max] of D_f, for images that
    leave [0, 1]. grid: round attacked pixels to multiples of 1/255, as the released code does.
    bn_eval: keep batch-norm statistics fixed. Only D_f passes through the network, so in train mode
    (the released code) they drift towards it.
    """

    weight_decay: NonNegative = 0.0
    epsilon: NonNegative = 0.1
    clip: Literal["unit", "data"] = "unit"
    grid: bool = True
    bn_eval: bool = False


class ExpandOptions(SgdOptions):
    """prune: drop the shadow class again (the paper). False is SalUn's re-implementation, which
    evaluates with it.

    init: of the shadow row: "xavier" (authors: Xavier-normal, bias 0) or "default" (SalUn's code:
    torch's own).
    """

    weight_decay: NonNegative = 0.0
    prune: bool = True
    init: Literal["xavier", "default"] = "xavier"
    bn_eval: bool = False


def shrink(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: ShrinkOptions,
    context: Context,
) -> nn.Module:
    """BS: min CE(f(x), y_nbi) on D_f, y_nbi the original's class just across the nearest
    boundary."""
    original = frozen_copy(model)
    bounds = _pixel_range(forget, options.clip)

    def neighbours(batch: Batch) -> Tensor:
        attacked = fgsm(original, batch.images, batch.labels, options.epsilon, bounds, options.grid)
        with torch.no_grad():
            return original(attacked).argmax(1)

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(net(batch.images), neighbours(batch))

    _note_neighbours(forget, neighbours, options.batch, context)
    context.fit(
        model,
        lambda _, generator: forget.batches(options.batch, generator),
        loss,
        options,
        on_epoch_start=fix_batch_norm if options.bn_eval else None,
    )
    return model


def expand(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: ExpandOptions,
    context: Context,
) -> nn.Module:
    """BE: push D_f into a shadow class C + 1, then drop that class."""
    num_classes = forget.num_classes
    widen(model, options.init, context.generator("shadow class"))
    context.fit(
        model,
        lambda _, generator: forget.batches(options.batch, generator),
        lambda net, batch: F.cross_entropy(net(batch.images), torch.full_like(batch.labels, num_classes)),
        options,
        on_epoch_start=fix_batch_norm if options.bn_eval else None,
    )
    context.extras["shadow_share"] = _share_in_class(model, forget, num_classes, options.batch)
    if options.prune:
        narrow(model)
    return model


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: tuple[float, float],
    grid: bool,
) -> Tensor:
    """x' = clip(x + epsilon sign(gradient of CE(f(x), y) at x)): one step, no random start. images
    (B, C, H, W)."""
    inputs = images.detach().clone().requires_grad_(True)
    # float32 whatever the loop's precision: half the signs would change where gradients underflow
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels, reduction="sum"), inputs)
    attacked = (images + epsilon * gradient.sign()).clamp(*bounds)
    return torch.round(attacked * 255) / 255 if grid else attacked


@torch.no_grad()
def widen(model: nn.Module, init: str, generator: torch.Generator) -> None:
    """Replace the last layer (D -> C) by (D -> C + 1): rows copied, the new one initialised."""
    old: nn.Linear = model.fc  # type: ignore[assignment]
    num_features, num_classes = old.in_features, old.out_features
    # torch.nn.Linear's own default is uniform with this bound, for weights and bias.
    bound = 1 / math.sqrt(num_features)
    row = torch.empty(1, num_features).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(1).uniform_(-bound, bound, generator=generator)
    if init == "xavier":
        row.normal_(0, math.sqrt(2 / (num_features + num_classes + 1)), generator=generator)
        bias.zero_()
    model.fc = _linear(
        torch.cat([old.weight, row.to(old.weight.device)]),
        torch.cat([old.bias, bias.to(old.bias.device)]),
    )


@torch.no_grad()
def narrow(model: nn.Module) -> None:
    """Drop the last row of the last layer."""
    old: nn.Linear = model.fc  # type: ignore[assignment]
    model.fc = _linear(old.weight[:-1], old.bias[:-1])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def fix_batch_norm(state: LoopState) -> None:
    """Batch norm uses and keeps its running statistics."""
    for module in state.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _pixel_range(data: DeviceImages, clip: str) -> tuple[float, float]:
    if clip == "unit":
        return 0.0, 1.0
    scale = 255 if data.images.dtype == torch.uint8 else 1
    return float(data.images.min()) / scale, float(data.images.max()) / scale


def _note_neighbours(data: DeviceImages, neighbours: Callable[[Batch], Tensor], batch: int, context: Context) -> None:
    """Leave the neighbour histogram and the crossing rate (share with y_nbi != y) for the
    figures."""
    found = torch.cat([neighbours(b) for b in data.without_augmentation().batches(batch, shuffle=False)])
    context.extras["crossing_rate"] = float((found != data.labels).float().mean())
    context.extras["neighbour_histogram"] = torch.bincount(found, minlength=data.num_classes).tolist()


@torch.no_grad()
def _share_in_class(model: nn.Module, data: DeviceImages, label: int, batch: int) -> float:
    model.eval()
    hits = [model(b.images).argmax(1) == label for b in data.without_augmentation().batches(batch, shuffle=False)]
    return float(torch.cat(hits).float().mean())
