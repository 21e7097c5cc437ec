"""Which convolution weights a sparse network keeps: one-shot and iterative magnitude pruning, SynFlow.

A mask is a dict of `shared.classification.masks`: name of a convolution's weight -> bool tensor of its shape, True =
kept. Only Conv2d weights are pruned, all layers ranked together (global, unstructured), as in Jia et al. (NeurIPS
2023, arXiv:2304.04934); linear layers, batch norm and biases stay dense and have no entry. Every mask prunes exactly
round(sparsity * n) of the n convolution weights, so of two masks of one ranking the sparser lies inside the denser.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from shared.classification.masks import Mask
from shared.errors import UserError


def conv_weights(model: nn.Module) -> dict[str, Tensor]:
    """The prunable weights by parameter name, in the model's order. Raises UserError when there are none."""
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d)}
    if not layers:
        raise UserError(f"model {type(model).__name__} has no convolution, so there is nothing to prune")
    return {f"{name}.weight" if name else "weight": part.weight for name, part in layers.items()}


def omp_mask(model: nn.Module, sparsity: float) -> Mask:
    """One-shot magnitude pruning: the smallest |weight| of the network as it is go, `sparsity` of all (in [0, 1))."""
    return imp_mask(model, sparsity, None)


def imp_mask(model: nn.Module, sparsity: float, mask: Mask | None) -> Mask:
    """One round of iterative magnitude pruning: prune on from `mask` (None: dense) until `sparsity` of all are gone.

    What `mask` prunes stays pruned, whatever value it has. Training between the rounds is the caller's.
    """
    return _prune({name: weight.detach().abs() for name, weight in conv_weights(model).items()}, sparsity, mask)


def exponential_sparsities(sparsity: float, num_steps: int) -> list[float]:
    """Sparsity after each of `num_steps` steps that all remove the same share of what is left, up to `sparsity`."""
    return [1 - (1 - sparsity) ** (step / num_steps) for step in range(1, num_steps)] + [sparsity]


def synflow_mask(model: nn.Module, sparsity: float, iterations: int, image_shape: Sequence[int]) -> Mask:
    """SynFlow (Tanaka et al. 2020, arXiv:2006.05467) at the model's present weights, meant for initialisation.

    Score |dR/dw * w| with R the sum of the outputs for one all-ones image of `image_shape` (C, H, W), under absolute
    weights and buffers, in eval mode and double precision; iteration k of n keeps (1 - sparsity)^(k/n). The
    normalisation is left out: R would not be positively homogeneous with it.
    """
    network = copy.deepcopy(model).double().eval()
    if hasattr(network, "normalize"):
        network.normalize = nn.Identity()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.abs_()
    weights = conv_weights(network)
    image = torch.ones((1, *image_shape), dtype=torch.float64, device=next(network.parameters()).device)
    mask: Mask | None = None
    for reached in exponential_sparsities(sparsity, iterations):
        gradients = torch.autograd.grad(network(image).sum(), list(weights.values()))
        scores = {
            name: (gradient * weight.detach()).abs()
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        mask = _prune(scores, reached, mask)
        apply_mask(network, mask)
    assert mask is not None
    return mask


@torch.no_grad()
def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """Set the pruned weights to 0 in place; returns the model."""
    parameters = dict(model.named_parameters())
    for name, kept in mask.items():
        parameters[name].mul_(kept.to(parameters[name].device))
    return model


def sparsity(pruned: nn.Module | Mapping[str, Tensor]) -> float:
    """Share of pruned convolution weights in [0, 1]: False entries of a mask, or zeros of a model."""
    tensors = conv_weights(pruned).values() if isinstance(pruned, nn.Module) else pruned.values()
    return sum(int((tensor == 0).sum()) for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


def _prune(scores: Mapping[str, Tensor], rate: float, mask: Mask | None) -> Mask:
    """Prune the lowest scores (>= 0) until round(rate * n) weights are gone, those of `mask` first."""
    if not 0 <= rate < 1:
        raise ValueError(f"sparsity must be in [0, 1), not {rate}")
    flat = torch.cat([score.flatten() for score in scores.values()])
    if not flat.isfinite().all():
        raise UserError("the weights to prune are not finite: the training before diverged; lower its learning rate")
    num = round(rate * flat.numel())
    if mask is not None:
        gone = ~torch.cat([mask[name].flatten() for name in scores]).to(flat.device)
        if num < gone.sum():
            raise ValueError(f"sparsity {rate} is {num} weights, but the mask already prunes {int(gone.sum())}")
        flat = flat.masked_fill(gone, -1.0)
    parts = (~_smallest(flat, num)).split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _smallest(scores: Tensor, num: int) -> Tensor:
    """True (n,) for the `num` smallest of `scores` (n,); among equals the first ones, so that choices nest."""
    if num == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(num).values
    chosen = scores < threshold
    ties = (scores == threshold).nonzero()[:, 0]
    chosen[ties[: num - int(chosen.sum())]] = True
    return chosen
