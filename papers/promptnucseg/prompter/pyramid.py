"""What the prompter reads images with: backbones that give maps of falling resolution, and a feature pyramid."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from papers.promptnucseg.prompter.options import Backbone, ConvNextSmall
from shared.data.checkpoints import load_checkpoint
from shared.errors import DataError


class SmallConvNet(nn.Module):
    """Stages of two 3x3 convolutions with batch norm; the first of each halves the resolution.

    forward: images (B, 3, H, W) to a list of maps (B, widths[i], H / 2^(i+1), W / 2^(i+1)).
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths, self.strides = list(widths), [2 << i for i in range(len(widths))]
        self.stages = nn.ModuleList(
            nn.Sequential(*_conv(before, width, stride=2), *_conv(width, width))
            for before, width in zip([3, *widths], widths, strict=False)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else images))
        return maps


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class ConvNext(nn.Module):
    """timm's ConvNeXt-small without its classifier: maps of strides 4, 8, 16, 32. 49,453,152 parameters."""

    def __init__(self) -> None:
        from timm import create_model

        super().__init__()
        body: Any = create_model("convnext_small", pretrained=False, features_only=True)
        self.body: nn.Module = body
        self.widths: list[int] = body.feature_info.channels()
        self.strides: list[int] = body.feature_info.reduction()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body(images)
        return maps

    def load(self, path: Path) -> None:
        """Take the weights of a file with timm's names for the classifier; raises DataError if one does not fit."""
        found = {}
        for name, value in load_checkpoint(path).items():
            top, _, rest = name.partition(".")
            if top in ("stem", "stages"):  # the maps are outputs of stages that are then modules of their own
                found[f"{top}_{rest}"] = value
        own = self.body.state_dict()
        wrong = next((name for name in own if name not in found or found[name].shape != own[name].shape), None)
        if wrong is not None or len(found) != len(own):
            odd = wrong or next(name for name in found if name not in own)
            raise DataError(f"{path}: not the weights of timm's convnext_small (see '{odd.replace('_', '.', 1)}')")
        self.body.load_state_dict(found)


def make_backbone(options: Backbone) -> SmallConvNet | ConvNext:
    """A freshly initialised backbone; `strides` and `widths` say what its maps are."""
    return ConvNext() if isinstance(options, ConvNextSmall) else SmallConvNet(options.widths)


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al., arXiv:1612.03144): every map takes part, the first `levels` come out.

    1x1 convolutions to a common width, nearest-neighbour sums from coarse to fine, a 3x3 convolution on each output;
    no norms and no activations.
    """

    def __init__(self, widths: list[int], width: int, levels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1) for before in widths)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        for conv in (*self.lateral, *self.output):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, widths[i], h_i, w_i), fine to coarse, to `levels` maps (B, width, h_i, w_i)."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for index in reversed(range(len(merged) - 1)):
            above = F.interpolate(merged[index + 1], size=merged[index].shape[2:], mode="nearest")
            merged[index] = merged[index] + above
        return [output(x) for output, x in zip(self.output, merged, strict=False)]
