"""The baseline backbone: a plain ViT with window attention, and a pyramid by (de)convolution."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from papers.mimdet.models.encoder import transformer_blocks
from papers.mimdet.models.positions import sincos_table
from papers.mimdet.models.stem import PatchStem
from papers.mimdet.options import BenchmarkingOptions
from shared.errors import ConfigError

_GROUPS = 4


class Benchmarking(nn.Module):
    """A backbone for `shared.detection.detector`, for square images of one size (Li et al., arXiv:2111.11429).

    Relative positions are shared: one table by all blocks with windows, one by all global blocks. Names are those of
    the released files.
    """

    pos_embed: Tensor

    def __init__(self, options: BenchmarkingOptions) -> None:
        super().__init__()
        D = options.dim
        self.options = options
        self.channels, self.strides = options.channels, options.strides
        self.patch_embed = PatchStem(D, options.patch)
        self.register_buffer("pos_embed", sincos_table(D, options.grid, options.axes, extra=0))
        self.blocks = transformer_blocks(D, options.heads, options.depth, options.drop_path, eps=1e-6)
        self.ms_adaptor = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(D, D, 2, 2), nn.GroupNorm(32, D), nn.GELU(), nn.ConvTranspose2d(D, D, 2, 2)
                ),
                nn.ConvTranspose2d(D, D, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        self.windowed_rel_pos_bias = RelativeBias(options.window, options.heads)
        self.global_rel_pos_bias = RelativeBias(options.grid, options.heads)
        _initialise(self)

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, S, S); S is the options' image size."""
        side = self.options.image
        if images.shape[2:] != (side, side):
            raise ConfigError(
                f"this backbone takes images of {side}x{side} pixels, not {images.shape[2]}x{images.shape[3]}: "
                f"set the input to kind: fixed, size: {side}"
            )
        x = self.patch_embed(images)[0].flatten(2).transpose(1, 2) + self.pos_embed
        # computed once: the global one has 4096 x 4096 entries a head
        windowed, overall = self.windowed_rel_pos_bias().to(x.dtype), self.global_rel_pos_bias().to(x.dtype)
        grid, window = self.options.grid, self.options.window
        size = len(self.blocks) // _GROUPS
        maps = {}
        for group, adaptor in enumerate(self.ms_adaptor):
            *local, last = self.blocks[group * size : (group + 1) * size]
            x = to_windows(x, grid, window)
            for block in local:
                x = self._block(block, x, windowed)
            x = self._block(last, from_windows(x, grid, window), overall)
            maps[f"s{group}"] = adaptor(x.transpose(1, 2).unflatten(2, (grid, grid)))
        return maps

    def _block(self, block: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
        if self.options.checkpointing and self.training:
            recomputed: Tensor = checkpoint(block, x, attn_mask=bias, use_reentrant=False)
            return recomputed
        out: Tensor = block(x, attn_mask=bias)
        return out


class RelativeBias(nn.Module):
    """Attention bias by the offset of two tokens of a square of side x side tokens; zeros at first."""

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.side = side
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))

    def forward(self) -> Tensor:
        """(heads, side^2, side^2): the entry of query (y, x) and key (y', x') is that of the offset y - y', x - x'."""
        place = torch.arange(self.side, device=self.relative_position_bias_table.device)
        offset = place[:, None] - place[None, :] + self.side - 1
        square = self.relative_position_bias_table.T.unflatten(1, (2 * self.side - 1, 2 * self.side - 1))
        rows = square[:, offset]  # (heads, y, y', 2 side - 1)
        return rows[..., offset].permute(0, 1, 3, 2, 4).flatten(3, 4).flatten(1, 2)


def to_windows(x: Tensor, grid: int, window: int) -> Tensor:
    """Tokens (N, grid^2, D) to windows (N * (grid / window)^2, window^2, D)."""
    num = grid // window
    split = x.unflatten(1, (num, window, num, window)).transpose(2, 3)
    return split.flatten(3, 4).flatten(0, 2)


def from_windows(x: Tensor, grid: int, window: int) -> Tensor:
    """Inverse of `to_windows`."""
    num = grid // window
    return x.unflatten(0, (-1, num, num)).unflatten(3, (window, window)).transpose(2, 3).flatten(1, 4)


@torch.no_grad()
def _initialise(model: Benchmarking) -> None:
    """Weights of a training from scratch: narrow normals, residual branches scaled down with depth."""
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)
    for number, block in enumerate(model.blocks, 1):
        for branch in ("attn.proj.weight", "mlp.fc2.weight"):
            block.get_parameter(branch).div_((2.0 * number) ** 0.5)
