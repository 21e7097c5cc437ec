"""Reach into causal language models: behind wrappers, to a module by name, to logits at chosen positions."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import ConfigError, nearest
from shared.text.batches import TextBatch


def unwrapped(model: nn.Module) -> nn.Module:
    """The causal model itself, without the wrappers of torch.compile, several processes, and peft."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        else:
            assert isinstance(inner, nn.Module)
            return inner


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The module called `path` in the plain model, such as "model.layers.7" or "transformer.h.1".

    Wrappers may have put a prefix before its name. Raises ConfigError if there is none.
    """
    modules = dict(unwrapped(model).named_modules())
    if path not in modules or not path:
        raise ConfigError(f"module: the model has no '{path}'{nearest(path, list(modules))}")
    return modules[path]


def logits_at(model: nn.Module, rows: TextBatch, mask: Tensor) -> Tensor:
    """(n, V) logits at the n True positions of mask (B, T), row by row; float32, or float64 of such a model.

    Models that can apply their output layer to those positions only, do: over a large vocabulary it is
    the larger part of memory, and for small models of time.
    """
    keep: dict[str, Any] = {"logits_to_keep": mask} if _takes_mask(model) else {}
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False, **keep).logits
    chosen: Tensor = logits if keep else logits[mask]
    return at_least_float32(chosen)


def _takes_mask(model: nn.Module) -> bool:
    # Older models and versions of the library know only columns, equal for all rows.
    return hasattr(sys.modules[type(unwrapped(model)).__module__], "slice_logits_to_keep")


def at_least_float32(values: Tensor) -> Tensor:
    """Half formats become float32; float64 stays, for tests against exact arithmetic."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class _ModuleReachedError(Exception):
    """The module that was asked for has run; the ones after it are not needed."""


def hidden_states(model: nn.Module, rows: TextBatch, path: str) -> Tensor:
    """(B, T, d) output of the module `path`; the modules after it do not run where the model allows it.

    Raises ConfigError if there is no such module, or it takes no part in a forward pass.
    """
    found: list[Tensor] = []
    # A compiled view would not see the hooks.
    model = getattr(model, "_orig_mod", model)
    # Several processes prepare their exchange of gradients after a complete forward pass, from its output, and
    # checkpointed layers must finish theirs.
    parallel = isinstance(model, nn.parallel.DistributedDataParallel)
    complete = parallel or any(getattr(m, "gradient_checkpointing", False) for m in unwrapped(model).modules())

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        if not complete:
            raise _ModuleReachedError

    def only_found(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return found[0] if found else output

    hooks = [find_module(model, path).register_forward_hook(keep)]
    if parallel:
        hooks.append(unwrapped(model).register_forward_hook(only_found))
    try:
        model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False)
    except _ModuleReachedError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ConfigError(f"module: '{path}' does not run in a forward pass of this model, or is hidden by compilation")
    return found[0]
