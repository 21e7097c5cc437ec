"""What the paper compares with: small trainable additions to the frozen image encoder (table 9).

SAM's own tensors keep their names, so that a file of the additions holds nothing else.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import UserError
from shared.segmentation.sam.encoder import VitEncoder

LORA_RANK = 4  # query, key and value of ViT-L's 24 blocks: 1.5 MiB
ADAPTER_CHANNELS = 64  # one adapter in each of ViT-L's 24 blocks: 12.0 MiB


class Adapter(nn.Module):
    """x + up(gelu(down(x))), no biases; `up` starts at zero, so that the model starts as SAM."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, channels, bias=False)
        self.up = nn.Linear(channels, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return x + self.up(F.gelu(self.down(x)))


def add_adapters(encoder: nn.Module, channels: int | None) -> None:
    """An adapter at the output of every block's MLP, before the residual sum (Pfeiffer et al., arXiv:2005.00247)."""
    for block in _blocks(encoder):
        mlp = block.mlp
        mlp.adapter = Adapter(mlp.lin2.out_features, channels or ADAPTER_CHANNELS).to(mlp.lin2.weight.device)
        mlp.register_forward_hook(_through_adapter)


def add_lora(encoder: nn.Module, rank: int | None) -> None:
    """Low-rank updates of every block's joint query, key and value projection (Hu et al., arXiv:2106.09685), with the
    scale 1; they start at zero.
    """
    from peft import LoraConfig, inject_adapter_in_model

    blocks, rank = _blocks(encoder), rank or LORA_RANK
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["qkv"]), encoder)
    for block in blocks:
        layer = block.attn.qkv
        layer.register_state_dict_post_hook(_sams_names)
        layer.register_load_state_dict_pre_hook(_peft_names)


def _blocks(encoder: nn.Module) -> Any:
    if not isinstance(encoder, VitEncoder):
        raise UserError("lora and adapters need a plain ViT as image encoder; give a model size of the kind 'vit'")
    return encoder.blocks


def _through_adapter(mlp: Any, inputs: Any, output: Tensor) -> Tensor:
    adapted: Tensor = mlp.adapter(output)
    return adapted


def _sams_names(layer: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for end in ("weight", "bias"):
        state[f"{prefix}{end}"] = state.pop(f"{prefix}base_layer.{end}")


def _peft_names(layer: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for end in ("weight", "bias"):
        if f"{prefix}{end}" in state:
            state[f"{prefix}base_layer.{end}"] = state.pop(f"{prefix}{end}")
