"""Weights into a module, or one line that says why they do not fit."""

from pathlib import Path

from torch import Tensor, nn

from shared.errors import DataError


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: str | Path) -> None:
    """Fill a module in place; every tensor of both has its place.

    Raises DataError naming the file and the first tensors that do not fit.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        first = next((line for line in lines[1:] if line), lines[0])
        raise DataError(f"{where}: does not fit this {type(module).__name__} ({first[:200]})") from None
