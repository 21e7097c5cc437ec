"""The light image encoder: timm's TinyViT with the neck of SAM (MobileSAM, Zhang et al., arXiv:2306.14289)."""

import re
from typing import Any

from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from shared.segmentation.sam.options import SamSize, TinyVitSize

# Names of the released files and of timm. timm puts the downsampling at the start of a stage, the files at the end of
# the one before.
_RENAMES = [
    (r"^patch_embed\.seq\.0\.", "patch_embed.conv1.", r"^patch_embed\.conv1\.", "patch_embed.seq.0."),
    (r"^patch_embed\.seq\.2\.", "patch_embed.conv2.", r"^patch_embed\.conv2\.", "patch_embed.seq.2."),
    (r"^norm_head\.", "head.norm.", r"^head\.norm\.", "norm_head."),
    (r"^head\.(weight|bias)$", r"head.fc.\1", r"^head\.fc\.", "head."),
    (r"^layers\.(\d)\.blocks\.", r"stages.\1.blocks.", r"^stages\.(\d)\.blocks\.", r"layers.\1.blocks."),
    (r"\.c\.weight$", ".conv.weight", r"\.conv\.weight$", ".c.weight"),
]


class TinyVitEncoder(nn.Module):
    """TinyViT-5M at 1024 pixels; its state dict has the names of the released files.

    The classifier of the files is kept, although nothing reads it: they load and save without a remainder.
    """

    def __init__(self, size: SamSize) -> None:
        super().__init__()
        tiny = size.encoder
        assert isinstance(tiny, TinyVitSize)
        self.img_size = size.image
        self.net = TinyVit(
            embed_dims=tuple(tiny.dims),
            depths=tuple(tiny.depths),
            num_heads=tuple(tiny.heads),
            window_sizes=tuple(tiny.windows),
            drop_path_rate=0.0,
        )
        last: Any = self.net.stages[3]
        last.downsample.conv2.conv.stride = (1, 1)  # the embedding keeps 64x64 tokens
        self.neck = nn.Sequential(
            nn.Conv2d(tiny.dims[-1], size.width, kernel_size=1, bias=False),
            LayerNorm2d(size.width),
            nn.Conv2d(size.width, size.width, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(size.width),
        )
        self.register_state_dict_post_hook(_release_names)
        self.register_load_state_dict_pre_hook(_timm_names)

    @property
    def early_module(self) -> nn.Module:
        """The downsampling before the third stage; its output is the early feature."""
        third: Any = self.net.stages[2]
        module: nn.Module = third.downsample
        return module

    def early(self, output: Tensor) -> Tensor:
        """What the early module returns (B, D, h, w), channels last."""
        return output.permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to embeddings (B, width, S / 16, S / 16)."""
        embedding: Tensor = self.neck(self.net.forward_features(x))
        return embedding


def to_timm(name: str) -> str:
    """Name in timm's network of a tensor of a released encoder ("image_encoder." taken off)."""
    if name.startswith("neck."):
        return name
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    for pattern, replacement, _, _ in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return f"net.{name}"


def to_release(name: str) -> str:
    """Inverse of `to_timm`."""
    if name.startswith("neck."):
        return name
    name = name.removeprefix("net.")
    name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", name)
    for _, _, pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _rename(state: dict[str, Any], prefix: str, rename: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + rename(key.removeprefix(prefix))] = state.pop(key)


def _release_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, prefix, to_release)


def _timm_names(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    _rename(state, prefix, to_timm)
