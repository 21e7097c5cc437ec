"""Training only part of the weights: a binary mask over parameters, held at every step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import nearest
from shared.training.state import LoopState


class WeightMask:
    """Lets only the weights with a true mask learn; its two methods are hooks for `fit`.

    mask: parameter name -> bool tensor of its shape; a parameter without an entry learns freely.
    leak: False is the algorithm as written: weights outside the mask keep their present value to
    the bit and gather no momentum. True only blocks their gradient, as SalUn's code did when its
    numbers were published: weight decay and its momentum still move them.
    """

    def __init__(self, model: nn.Module, mask: Mapping[str, Tensor], leak: bool = False) -> None:
        parameters = dict(model.named_parameters())
        for name, entries in mask.items():
            if name not in parameters:
                hint = nearest(name, list(parameters))
                raise ValueError(f"the mask names '{name}', which is no parameter{hint}")
            if entries.shape != parameters[name].shape:
                found, wanted = tuple(entries.shape), tuple(parameters[name].shape)
                raise ValueError(f"the mask of '{name}' has shape {found}, its weight {wanted}")
        self._leak = leak
        self._parameters = [parameters[name] for name in mask]
        # In the parameters' own memory layout, so that the product with a gradient is one pass.
        self._factors = [torch.empty_like(parameters[name]).copy_(mask[name]).detach() for name in mask]
        self._frozen = [factor == 0 for factor in self._factors]
        self._anchors = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def after_backward(self, state: LoopState) -> None:
        """Gradient times mask."""
        for parameter, factor in zip(self._parameters, self._factors, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    @torch.no_grad()
    def after_step(self, state: LoopState) -> None:
        """Put weights outside the mask back and clear their momentum, unless it leaks."""
        if self._leak:
            return
        for parameter, frozen, anchor in zip(self._parameters, self._frozen, self._anchors, strict=True):
            torch.where(frozen, anchor, parameter.detach(), out=parameter.data)
            momentum = state.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                momentum.masked_fill_(frozen, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The values to hold, for a checkpoint (give the mask to `fit` under `stateful` too)."""
        return {"anchors": self._anchors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for anchor, saved in zip(self._anchors, state["anchors"], strict=True):
            anchor.copy_(saved)
