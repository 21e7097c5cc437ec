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
from pydantic import model_validator
from torch import Tensor, nn

from papers.boundary.enhanced import crossing_weight, curvature, normalisation
from shared.classification.context import Context
from shared.classification.distillation import frozen_copy
from shared.classification.options import SgdOptions
from shared.errors import UserError
from shared.metrics.accuracy import predict, predictions
from shared.options import Count, NonNegative, Options, Positive
from shared.training.device_images import Batch, DeviceImages
from shared.training.loop import Loss
from shared.training.state import LoopState


class AttackOptions(Options):
    """The search for neighbours. epsilon: bound of the attack in pixel units ([0, 1]).

    attack_norm: "matched": the attack works on pixels. "official": the released code trains on (x - .5) / .5 but takes
    its attack through another normalisation, so the step is epsilon / .2 in network units (2.5 epsilon in pixels),
    rounding happens on that scale and [0, 1] hardly ever binds; it made the published numbers.
    clip: range of attacked pixels: "unit" = [0, 1]; "data" = [min, max] of D_f, for images that leave [0, 1].
    grid: round attacked pixels to multiples of 1/255, as the released code does.
    """

    batch: Count = 256
    epsilon: NonNegative = 0.1
    attack_norm: Literal["matched", "official"] = "matched"
    clip: Literal["unit", "data"] = "unit"
    grid: bool = True

    @model_validator(mode="after")
    def _one_clip(self) -> "AttackOptions":
        if self.attack_norm == "official" and self.clip != "unit":
            raise ValueError("attack_norm: official clips to [0, 1] of its own scale; clip must be unit")
        return self


class ShrinkOptions(SgdOptions, AttackOptions):
    """bn_eval: keep batch-norm statistics fixed. Only D_f passes through the network, so in train mode (the released
    code) they drift towards it.

    curvature: lambda of the curvature regulariser (enhanced BS: 0.7; 0 = off), curvature_step: its h.
    reweight: weigh each image by how far it crossed (enhanced BS), with bias b and slope t of the sigmoid.
    """

    weight_decay: NonNegative = 0.0
    bn_eval: bool = False
    curvature: NonNegative = 0.0
    curvature_step: Positive = 0.9
    reweight: bool = False
    reweight_bias: float = -0.5
    reweight_slope: Positive = 5.0


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
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: ShrinkOptions, context: Context
) -> nn.Module:
    """BS: min CE(f(x), y_nbi) on D_f, y_nbi the original's class just across the nearest
    boundary."""
    original = frozen_copy(model)
    crossed = crossing(original, forget, options)

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        beyond = crossed(batch)
        if options.reweight:
            losses = F.cross_entropy(net(batch.images), beyond.argmax(1), reduction="none")
            value = (crossing_weight(beyond, options.reweight_bias, options.reweight_slope) * losses).mean()
        else:
            value = F.cross_entropy(net(batch.images), beyond.argmax(1))
        if options.curvature:
            bend, aim = (curvature(f, batch, options.curvature_step) for f in (net, original))
            value = value + options.curvature * torch.linalg.vector_norm(aim - bend)
        return value

    _note_neighbours(forget, crossed, options.batch, context)
    _fit(model, forget, loss, options, context)
    return model


def neighbours(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: AttackOptions, context: Context
) -> nn.Module:
    """What BS imitates: L1 distance (0..2) of y_nbi's histogram on D_f, and of the uniform one over the other
    classes, to that of Retrain's predictions. Nothing is unlearned; the row needs the stage `retrain`."""
    found = _note_neighbours(forget, crossing(frozen_copy(model), forget, options), options.batch, context)
    retrained = torch.from_numpy(predictions(predict(context.stages("retrain")[0], forget)))
    present = torch.bincount(forget.labels.cpu(), minlength=forget.num_classes) / len(forget)
    target = torch.bincount(retrained, minlength=forget.num_classes) / len(forget)
    uniform = (1 - present) / (forget.num_classes - 1)
    context.measure("neighbour_distance", float((found / len(forget) - target).abs().sum()))
    context.measure("uniform_distance", float((uniform - target).abs().sum()))
    context.extras["forgotten"] = forget.labels.unique().tolist()
    context.extras["retrain_histogram"] = torch.bincount(retrained, minlength=forget.num_classes).tolist()
    return model


def expand(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: ExpandOptions, context: Context
) -> nn.Module:
    """BE: push D_f into a shadow class C + 1, then drop that class."""
    num_classes = forget.num_classes
    widen(model, options.init, context.generator("shadow class"))

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(net(batch.images), torch.full_like(batch.labels, num_classes))

    _fit(model, forget, loss, options, context)
    model.eval()
    share = float((predictions(predict(model, forget, options.batch)) == num_classes).mean())
    context.extras["shadow_share"] = share
    context.measure("shadow_share", 100 * share, "%")
    if options.prune:
        narrow(model)
    return model


def _fit(
    model: nn.Module, forget: DeviceImages, loss: Loss, options: ShrinkOptions | ExpandOptions, context: Context
) -> None:
    start = fix_batch_norm if options.bn_eval else None
    context.fit(model, lambda _, g: forget.batches(options.batch, g), loss, options, on_epoch_start=start)


def crossing(model: nn.Module, data: DeviceImages, options: AttackOptions) -> Callable[[Batch], Tensor]:
    """batch -> logits (B, C) of the frozen `model` at the attacked images; their argmax is y_nbi."""
    bounds = _pixel_range(data, options.clip)
    scale = official_scale(model, data) if options.attack_norm == "official" else (1.0, 0.0)

    def logits(batch: Batch) -> Tensor:
        attacked = fgsm(model, batch.images, batch.labels, options.epsilon, bounds, options.grid, scale)
        with torch.no_grad():
            found: Tensor = model(attacked)
        return found

    return logits


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: tuple[float, float],
    grid: bool,
    scale: tuple[Tensor | float, Tensor | float] = (1.0, 0.0),
) -> Tensor:
    """x' = clip(x + epsilon sign(gradient of CE(f(x), y) at x)): one step, no random start. images
    (B, C, H, W). scale: gain (positive) and offset of the space in which step, clip and grid are meant."""
    inputs = images.detach().clone().requires_grad_(True)
    # float32 whatever the loop's precision: half the signs would change where gradients underflow
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels, reduction="sum"), inputs)
    gain, offset = scale
    attacked = (images * gain + offset + epsilon * gradient.sign()).clamp(*bounds)
    attacked = torch.round(attacked * 255) / 255 if grid else attacked
    return (attacked - offset) / gain


def official_scale(model: nn.Module, data: DeviceImages) -> tuple[Tensor, Tensor]:
    """Gain and offset (C, 1, 1) from our pixels, which the model itself normalises, to the released attack's space:
    network inputs times the std plus the mean of another normalisation than the network's."""
    channels = data.images.shape[1]
    if channels != 3:
        raise UserError(f"attack_norm: official is for 3 colour channels, these images have {channels}; use matched")
    # blue's .2265 is the release's own, for CIFAR-10's .4465
    wrong_mean, wrong_std = (
        torch.tensor(values, device=data.device).view(3, 1, 1)
        for values in ((0.4914, 0.4822, 0.2265), (0.2023, 0.1994, 0.2010))
    )
    mean, std = normalisation(model)
    return wrong_std / std, wrong_mean - mean * wrong_std / std


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


def _note_neighbours(data: DeviceImages, crossed: Callable[[Batch], Tensor], batch: int, context: Context) -> Tensor:
    """Histogram (C,) of y_nbi on D_f; leaves it and the crossing rate (share with y_nbi != y) in the record."""
    batches = data.without_augmentation().batches(batch, shuffle=False)
    found = torch.cat([crossed(b).argmax(1) for b in batches])
    histogram = torch.bincount(found, minlength=data.num_classes).cpu()
    context.extras["crossing_rate"] = float((found != data.labels).float().mean())
    context.extras["neighbour_histogram"] = histogram.tolist()
    context.measure("crossing_rate", 100 * context.extras["crossing_rate"], "%")
    return histogram
