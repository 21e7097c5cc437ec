"""Thin adapters beside a network's layers: out + scale * alpha / rank * up(down(x)), as SPM and LoRA have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Membrane(nn.Module):
    """One adapter; the first map starts as Kaiming's, the second at zero, so that it starts as nothing."""

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__()
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Conv2d):
            size, stride, padding = layer.kernel_size, layer.stride, layer.padding
            self.down = nn.Conv2d(layer.in_channels, rank, size, stride, padding, bias=False)  # type: ignore[arg-type]
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        elif isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            raise TypeError(f"no adapter for a {type(layer).__name__}")
        nn.init.kaiming_uniform_(self.down.weight, a=1)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The adapter's own output."""
        return self.up(self.down(x))

    def product(self) -> Tensor:
        """up @ down, in the shape of the layer's weight."""
        down, up = self.down.weight, self.up.weight
        return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


class Membranes(nn.Module):
    """Adapters of all linear and convolution layers of `network`, attached from the start.

    scale: a number, or (B,) one an image: a batch of k B rows, as guidance makes it, repeats it k times.
    """

    def __init__(self, network: nn.Module, rank: int = 1, alpha: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.scale: float | Tensor = 1.0
        self._strength = alpha / rank
        layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = {name: Membrane(layer, rank) for name, layer in layers.items()}
        # a module's name may hold no dot
        self.adapters = nn.ModuleDict({name.replace(".", "/"): adapter for name, adapter in made.items()})
        # a tuple: the network's own weights are no part of this module
        self._pairs = tuple((layer, made[name]) for name, layer in layers.items())
        like = self._pairs[0][0].weight
        self.to(device=like.device, dtype=like.dtype)
        self._handles = [layer.register_forward_hook(self._hook(adapter)) for layer, adapter in self._pairs]

    def _hook(self, adapter: Membrane) -> Any:
        def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            scale = self.scale
            if isinstance(scale, Tensor):
                scale = scale.repeat(len(output) // len(scale)).view(-1, *[1] * (output.dim() - 1)).to(output)
            elif scale == 0:
                return output
            return output + scale * self._strength * adapter(inputs[0])

        return add

    @contextmanager
    def scaled(self, scale: float | Tensor) -> Iterator[None]:
        """The network with another scale; 0 is the network without adapters."""
        before, self.scale = self.scale, scale
        try:
            yield
        finally:
            self.scale = before

    def detach(self) -> None:
        """Take the adapters off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def fuse(self) -> None:
        """Add the adapters to the layers' weights at their present scale (a number), and take them off."""
        if isinstance(self.scale, Tensor):
            raise ValueError("adapters with a scale for every image cannot become weights")
        for layer, adapter in self._pairs:
            layer.weight += self.scale * self._strength * adapter.product()
        self.detach()
