"""Weight masks of unlearning: which weights may move. How a mask is chosen is a paper's business.

A mask is a dict: parameter name -> bool tensor of the parameter's shape (True = may move). Training
under a mask is `shared.training.mask.WeightMask`; methods that move the weights in one jump go
through `shift`.
"""

import torch
from torch import Tensor, nn

Mask = dict[str, Tensor]


def intersect(first: Mask | None, second: Mask) -> Mask:
    """Weights that both masks let move."""
    return second if first is None else {name: first[name] & part for name, part in second.items()}


@torch.no_grad()
def shift(model: nn.Module, direction: list[Tensor], mask: Mask | None) -> None:
    """Add `direction` (one tensor a parameter, in order) to the weights that the mask lets move."""
    for (name, parameter), step in zip(model.named_parameters(), direction, strict=True):
        parameter.add_(step if mask is None else torch.where(mask[name].to(step.device), step, 0.0))
