"""IU: one Newton step away from D_f (Izzo et al. 2021, with WoodFisher).

theta_u = theta_o + alpha k,  k ~ H^-1 v,  v = (n_f / N_all) (mean gradient on D_f - mean gradient
on D_r).

Per-sample gradients g_i enter only through products with one vector, which forward-mode
differentiation gives for a whole batch at once: no per-sample gradient is ever stored, whatever the
number of samples.
"""

import warnings
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from shared.classification.batches import num_batches
from shared.classification.context import Context
from shared.options import Count, NonNegative, Options, Positive
from shared.training.device_images import Batch, DeviceImages

Vector = list[Tensor]  # one tensor a parameter, in `named_parameters()` order


class IuOfficialOptions(Options):
    """alpha: searched in [1, 20] for the tables (the code's own default is 0.2). num: the constant
    N = 1000 of the released code, which is both the weight of the damping and (plus 2) the number
    of samples that it visits."""

    alpha: NonNegative = 10.0
    num: Count = 1000
    batch: Count = 256


class IuOptions(Options):
    """damping: lambda of F + lambda I (1 in the released recursion); num: samples of D_r that make
    F; iterations, tolerance: of conjugate gradients, the tolerance relative to |v|."""

    alpha: NonNegative = 10.0
    num: Count = 1000
    damping: Positive = 1.0
    iterations: Count = 50
    tolerance: Positive = 1e-5
    batch: Count = 256


def iu_official(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: IuOfficialOptions,
    context: Context,
) -> nn.Module:
    """IU as released. Its recursion o <- o - t/(N + t) o keeps o parallel to the first sample's
    gradient g_1, so k moves along g_1 only and stays close to v: not the WoodFisher recursion it is
    named after (that is `iu`)."""
    model.eval()
    v = gradient_difference(model, forget, retain, options.batch, context)
    samples = _first(retain, options.num + 2, options.batch, context)
    (first, *_) = samples
    one = Batch(*(part[:1] for part in first))
    g_1 = _of_network(model, loss_gradient(model, [one], 1.0), context)
    along_g_1 = torch.cat([directional(model, batch, g_1) for batch in samples]).double().tolist()
    along_v = torch.cat([directional(model, batch, v) for batch in samples]).double().tolist()
    context.count(1 + 2 * len(samples))
    # o = scale * g_1 and k = v + shift * g_1, so two numbers carry the whole recursion.
    scale, shift = 1.0, 0.0
    for g_1_g, v_g in zip(along_g_1[1:], along_v[1:], strict=True):
        t = scale * g_1_g
        k_g = v_g + shift * g_1_g
        shift -= k_g / (options.num + t) * scale
        scale -= t / (options.num + t) * scale
    context.shift(model, [options.alpha * (a + shift * b) for a, b in zip(v, g_1, strict=True)])
    return model


def iu(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: IuOptions,
    context: Context,
) -> nn.Module:
    """IU with the real inverse of the damped empirical Fisher F = 1/num sum g_i g_i' + lambda I of
    D_r's first samples, which the WoodFisher recursion o_i = F_{i-1}^-1 g_i also reaches, by
    conjugate gradients."""
    model.eval()
    v = gradient_difference(model, forget, retain, options.batch, context)
    samples = _first(retain, options.num, options.batch, context)
    num_samples = sum(len(batch.labels) for batch in samples)

    def fisher(vector: Vector) -> Vector:
        context.count(2 * len(samples))
        product = [options.damping * part for part in vector]
        for batch in samples:
            weights = directional(model, batch, vector) / num_samples
            gradient = _of_network(model, weighted_gradient(model, batch, weights), context)
            for total, part in zip(product, gradient, strict=True):
                total.add_(part)
        return product

    k = conjugate_gradients(fisher, v, options.iterations, options.tolerance)
    context.shift(model, [options.alpha * part for part in k])
    return model


def gradient_difference(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, batch: int, context: Context
) -> Vector:
    """v: eval mode, training augmentation, data-set order; both gradients summed into one
    vector."""
    generator = context.generator("gradients")
    num_all = len(forget) + len(retain)
    context.count(num_batches(forget, batch) + num_batches(retain, batch))
    v = loss_gradient(model, forget.batches(batch, generator, shuffle=False), 1 / num_all)
    minus = -len(forget) / (num_all * len(retain))
    for total, part in zip(
        v, loss_gradient(model, retain.batches(batch, generator, shuffle=False), minus), strict=True
    ):
        total.add_(part)
    return _of_network(model, v, context)


def _of_network(model: nn.Module, vector: Vector, context: Context) -> Vector:
    """The vector without the entries of pruned weights, which are no variables of the network."""
    for (name, _), part in zip(model.named_parameters(), vector, strict=True):
        if name in context.pruned:
            part.mul_(context.pruned[name].to(part.device))
    return vector


def loss_gradient(model: nn.Module, batches: Iterable[Batch], weight: float) -> Vector:
    """Gradient of weight * sum of the samples' cross-entropies, accumulated batch by batch."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        (weight * F.cross_entropy(model(batch.images), batch.labels, reduction="sum")).backward()
    return _take_gradients(model)


def weighted_gradient(model: nn.Module, batch: Batch, weights: Tensor) -> Vector:
    """sum_i weights_i g_i over the samples of a batch; weights (B,)."""
    model.zero_grad(set_to_none=True)
    (weights * F.cross_entropy(model(batch.images), batch.labels, reduction="none")).sum().backward()
    return _take_gradients(model)


def directional(model: nn.Module, batch: Batch, direction: Vector) -> Tensor:
    """g_i' direction for every sample of a batch (B,): one forward-mode pass."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def losses(values: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, values, (batch.images,)), batch.labels, reduction="none")

    tangents = dict(zip(parameters, direction, strict=True))
    with torch.no_grad(), warnings.catch_warnings():
        # torch scripts its own forward-mode rules and warns that scripting is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        products: Tensor = jvp(losses, (parameters,), (tangents,))[1]
    return products


def conjugate_gradients(
    product: Callable[[Vector], Vector], right: Vector, iterations: int, tolerance: float
) -> Vector:
    """Solve A x = right for a symmetric positive definite A given as a function.

    `right` is used up: it becomes the residual, which saves a vector of the model's size.
    """
    solution = [torch.zeros_like(part) for part in right]
    residual = right
    search = [part.clone() for part in right]
    norm = start = _dot(residual, residual)
    for _ in range(iterations):
        if norm <= tolerance**2 * start:
            break
        image = product(search)
        length = norm / _dot(search, image)
        for x, r, s, a in zip(solution, residual, search, image, strict=True):
            x.add_(s, alpha=length)
            r.sub_(a, alpha=length)
        norm, before = _dot(residual, residual), norm
        for s, r in zip(search, residual, strict=True):
            s.mul_(norm / before).add_(r)
    return solution


def _first(data: DeviceImages, num: int, batch: int, context: Context) -> list[Batch]:
    subset = data.subset(range(min(num, len(data))))
    return list(subset.batches(batch, context.generator("samples"), shuffle=False))


def _take_gradients(model: nn.Module) -> Vector:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return gradients


def _dot(a: Vector, b: Vector) -> float:
    return sum(float(torch.dot(x.flatten().double(), y.flatten().double())) for x, y in zip(a, b, strict=True))
