"""Which parameters of a model train, by rules on their names (those of diffusers' `UNet2DConditionModel`).

ESD's names for them: cross_attention is "xattn" (ESD-x), non_cross_attention "noxattn" (ESD-u), no_time "notime".
"""

from collections.abc import Callable

from torch import nn

from shared.errors import ConfigError, nearest


def _outside(name: str) -> bool:
    """Time embedding and output layers. The projections of the time inside residual blocks are not among them."""
    return name.startswith(("time_embedding.", "conv_norm_out.", "conv_out."))


RULES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "cross_attention": lambda name: ".attn2." in name,
    "self_attention": lambda name: ".attn1." in name,
    "key_value": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,
    "non_cross_attention": lambda name: ".attn2." not in name and not _outside(name),
    "no_time": lambda name: not _outside(name),
}


def select(model: nn.Module, rule: str) -> dict[str, nn.Parameter]:
    """The parameters that a rule names, by name, in the model's order.

    Raises ConfigError for an unknown rule, or one that selects nothing (such as cross attention in a text encoder).
    """
    if rule not in RULES:
        raise ConfigError(f"'{rule}' names no subset of weights{nearest(rule, list(RULES))}")
    found = {name: parameter for name, parameter in model.named_parameters() if RULES[rule](name)}
    if not found:
        raise ConfigError(f"a {type(model).__name__} has no weights of the subset '{rule}'")
    return found


def train_only(model: nn.Module, rule: str) -> list[nn.Parameter]:
    """Freeze all parameters but those of a rule; returns the latter, for an optimizer."""
    chosen = select(model, rule)
    model.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return list(chosen.values())
