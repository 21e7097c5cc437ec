"""Weight masks of unlearning: which weights may move. How a mask is chosen is a paper's business.

A mask is a dict: parameter name -> bool tensor of the parameter's shape (True = may move); a parameter without an
entry moves freely. Training
under a mask is `shared.training.mask.WeightMask`; methods that move the weights in one jump go
through `shift`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shared.errors import DataError
from shared.files import atomic_path

Mask = dict[str, Tensor]


def intersect(first: Mask | None, second: Mask) -> Mask:
    """Weights that both masks let move."""
    if first is None:
        return second
    both = {name: first[name] & second[name] for name in first.keys() & second.keys()}
    return {**first, **second, **both}


@torch.no_grad()
def shift(model: nn.Module, direction: list[Tensor], mask: Mask | None) -> None:
    """Add `direction` (one tensor a parameter, in order) to the weights that the mask lets move."""
    for (name, parameter), step in zip(model.named_parameters(), direction, strict=True):
        moves = None if mask is None else mask.get(name)
        parameter.add_(step if moves is None else torch.where(moves.to(step.device), step, 0.0))


def save_mask(mask: Mapping[str, Tensor], path: Path) -> None:
    """Write a mask atomically."""
    with atomic_path(path) as temporary:
        save_file({name: part.cpu().contiguous() for name, part in mask.items()}, temporary)


def load_mask(path: Path, device: torch.device | str = "cpu") -> Mask:
    """Read what `save_mask` wrote. Raises DataError naming the file."""
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable mask ({error}); delete its folder and run the stage again") from None
