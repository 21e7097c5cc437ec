"""The class-conditional noise predictor of DDPM (arXiv:2006.11239) that class-wise unlearning of CIFAR-10 takes.

DDPM's U-Net, in which every residual block also sees the class: the time's and the class's embeddings are joined
and one linear map of both is added to the block's features. A learned vector stands for "no class".
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from shared.diffusion.saved import SavedModel


class ClassUnet(SavedModel):
    """eps(x_t, t, c) for images (B, in_channels, size, size) and classes c in 0..num_classes; c = num_classes: none.

    channels: width of the first level; multipliers: of each level, with a halving between two; attention: sizes of the
    feature maps that have it; the embeddings are 4 * channels wide. Called as diffusers' U-Nets are.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        num_blocks: int = 2,
        attention: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        groups: int = 32,
    ) -> None:
        super().__init__()
        width = 4 * channels
        self.time = _Embedding(channels, width)
        self.classes = nn.Embedding(num_classes, channels)
        self.null = nn.Parameter(torch.randn(channels))
        self.class_mlp = _Embedding(channels, width)
        make = _Maker(2 * width, dropout, groups, attention)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        size, skips, now = sample_size, [channels], channels
        for level, multiplier in enumerate(multipliers):
            for _ in range(num_blocks):
                self.down.append(make.block(now, channels * multiplier, size))
                now = channels * multiplier
                skips.append(now)
            if level + 1 < len(multipliers):
                self.down.append(_Downsample(now))
                skips.append(now)
                size //= 2
        self.middle = nn.ModuleList([make.block(now, now, size, attend=True), make.block(now, now, size, attend=False)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(num_blocks + 1):
                self.up.append(make.block(now + skips.pop(), channels * multiplier, size))
                now = channels * multiplier
            if level:
                self.up.append(_Upsample(now))
                size *= 2
        self.norm_out = nn.GroupNorm(groups, now, eps=1e-6)
        self.conv_out = nn.Conv2d(now, in_channels, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, classes: Tensor) -> Tensor:
        """Predicted noise of sample (B, C, H, W); timestep () or (B,); classes (B,) int64, `num_classes` for none."""
        time = timestep.expand(len(sample)) if timestep.ndim == 0 else timestep
        table = torch.cat([self.classes.weight, self.null[None]])
        waves = get_timestep_embedding(time, self.null.numel(), downscale_freq_shift=1)  # DDPM's: sines, then cosines
        joined = torch.cat([self.time(waves), self.class_mlp(table[classes])], 1)
        embedded = F.silu(joined)
        features = self.conv_in(sample)
        skips = [features]
        for layer in self.down:
            features = layer(features, embedded)
            skips.append(features)
        for layer in self.middle:
            features = layer(features, embedded)
        for layer in self.up:
            if isinstance(layer, _Block):
                features = torch.cat([features, skips.pop()], 1)
            features = layer(features, embedded)
        predicted: Tensor = self.conv_out(F.silu(self.norm_out(features)))
        return predicted


class _Maker:
    """Residual blocks of one network."""

    def __init__(self, embedded: int, dropout: float, groups: int, attention: tuple[int, ...]) -> None:
        self._settings, self._attention = (embedded, dropout, groups), attention

    def block(self, channels: int, out: int, size: int, attend: bool | None = None) -> nn.Module:
        """A block at a feature map's size, with attention where that size has it."""
        return _Block(channels, out, *self._settings, size in self._attention if attend is None else attend)


class _Embedding(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.second(F.silu(self.first(x)))
        return embedded


class _Block(nn.Module):
    """Residual block, then self-attention if asked for."""

    def __init__(self, channels: int, out: int, embedded: int, dropout: float, groups: int, attend: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels, eps=1e-6), nn.Conv2d(channels, out, 3, padding=1)
        self.project = nn.Linear(embedded, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out, eps=1e-6), nn.Conv2d(out, out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.attention = _Attention(out, groups) if attend else nn.Identity()

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.project(embedded)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        attended: Tensor = self.attention(self.shortcut(x) + h)
        return attended


class _Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        attended: Tensor = x + self.out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))
        return attended


class _Downsample(nn.Module):
    """Halves the map; padded on the right and bottom only, as DDPM's TensorFlow code did."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class _Upsample(nn.Module):
    """Doubles the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0))
        return doubled


def num_parameters(model: Any) -> int:
    """All parameters of a model, also on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())
