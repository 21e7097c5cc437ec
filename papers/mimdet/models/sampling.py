"""Which tokens the encoder sees: a random subset of each image, its padding last (section 3.1)."""

import torch
from torch import Tensor

_PADDING = 100.0  # noise of padding; that of other places is below 1


def valid_tokens(sizes: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Tokens that hold at least one pixel of the image: (N, h * w) bool. sizes: (N, 2) height and width."""
    used = torch.div(sizes + patch - 1, patch, rounding_mode="floor")
    rows, columns = (torch.arange(side) < used[:, axis : axis + 1].cpu() for axis, side in enumerate(grid))
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def random_order(valid: Tensor, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A random order of each image's tokens with padding at its end: places (N, L) int64.

    generator: where the noise comes from; None: torch's own generator of the device.
    """
    source = generator.device if generator is not None else device
    noise = torch.rand(valid.shape, generator=generator, device=source).to(device)
    return noise.masked_fill(~valid.to(device), _PADDING).argsort(1)


def take_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (N, K, D) at places (N, K) of tokens (N, L, D)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def put_back(tokens: Tensor, order: Tensor) -> Tensor:
    """Inverse of taking all tokens in an order (N, L)."""
    return take_tokens(tokens, order.argsort(1))
