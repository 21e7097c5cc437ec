"""What fusion costs: counted from the U-Net of Stable Diffusion 2.1, of which no weight is made."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from papers.diffews.fusion import self_attentions
from papers.diffews.network import doubled
from shared.options import Count, Options
from shared.results.records import Metric
from shared.study import Findings

# unet/config.json of Stable Diffusion 2.1
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


class CostOptions(Options):
    """fusion: of the self-attention; "none" has no example. shots: examples; side: of the latents."""

    fusion: Literal["none", "kv", "qkv"]
    shots: Count = 1
    side: Annotated[int, Field(ge=8, multiple_of=8)] = 64


def attention_cost(options: CostOptions, seed: int) -> Findings:
    """For one more query of the same examples, all self-attentions together: `attention_tokens`, queries times keys in
    millions (a layer's heads count once), and `attention_GFLOPs`, of products of queries with keys and weights with
    values. `parameters`: of the U-Net with the first convolution of examples, and `new_parameters`, that convolution's.

    KV fusion reads the examples' keys and values from the bank. QKV fusion runs the examples again, since what they
    become depends on the query.
    """
    unet = unet_without_weights()
    pairs = {name: _pairs(tokens, options) for name, tokens in layer_tokens(unet, options.side).items()}
    flops = sum(4 * number * unet.get_submodule(name).to_q.out_features for name, number in pairs.items())
    new = _count(doubled_shape(unet)) if options.fusion != "none" else 0
    values = {
        "attention_tokens": (sum(pairs.values()) / 1e6, ""),
        "attention_GFLOPs": (flops / 1e9, ""),
        "parameters": (float(_count(unet) + new), ""),
        "new_parameters": (float(new), ""),
    }
    return Findings([Metric(name, value, unit, "lower") for name, (value, unit) in values.items()])


def unet_without_weights() -> Any:
    """On torch's meta device."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**UNET)


def doubled_shape(unet: Any) -> nn.Module:
    """The first convolution of examples, without weights."""
    return doubled(unet.conv_in)


def layer_tokens(unet: Any, side: int) -> dict[str, int]:
    """Tokens of each self-attention for latents of `side` a side: every block but the last of each half halves it."""
    levels = len(unet.config.block_out_channels)

    def tokens(name: str) -> int:
        half, _, rest = name.partition(".")
        level = levels - 1 if half == "mid_block" else int(rest.split(".")[0])
        level = levels - 1 - level if half == "up_blocks" else level
        return (side >> level) ** 2

    return {name: tokens(name) for name in self_attentions(unet)}


def _pairs(tokens: int, options: CostOptions) -> int:
    own = tokens**2
    return own * {"none": 1, "kv": 1 + options.shots, "qkv": (1 + options.shots) ** 2}[options.fusion]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
