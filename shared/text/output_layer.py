"""A model's output layer at chosen positions only: over a large vocabulary it is most of the memory."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from shared.text.losses.modules import at_least_float32


def chosen_logits(model: nn.Module, chosen: Tensor, compute: Callable[[], Any]) -> tuple[Tensor, Any]:
    """(n, V) logits at the positions `chosen` (n,) of the flattened (B * T) inputs, and the model's whole output.

    compute: calls the model. Its own output layer, with whatever scaling follows it, is handed the chosen hidden
    states only: this works for every architecture, whatever its forward pass calls the option.
    """
    reached = False

    def keep(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal reached
        reached = True
        return inputs[0].flatten(0, 1)[chosen][None], *inputs[1:]

    layer = model.get_output_embeddings()  # type: ignore[operator]
    hook = layer.register_forward_pre_hook(keep) if layer is not None else None
    try:
        output = compute()
    finally:
        if hook is not None:
            hook.remove()
    logits = output.logits.flatten(0, 1)
    return at_least_float32(logits if reached else logits[chosen]), output
