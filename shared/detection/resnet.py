"""torchvision's ResNets as backbones: what a new one is compared with."""

from pathlib import Path

import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from shared.detection.options import ResNetOptions
from shared.detection.weights import load_strictly


class ResNet(nn.Module):
    """A backbone for `shared.detection.detector`: maps c2 to c5 of strides 4 to 32. Names are torchvision's."""

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        norm = FrozenBatchNorm2d if options.frozen_norm else nn.BatchNorm2d
        whole = torchvision.models.get_model(options.kind, weights=None, norm_layer=norm)
        for name, child in whole.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)
        last = 512 if options.kind != "resnet50" else 2048
        self.channels = [last // 8, last // 4, last // 2, last]
        self.strides = [4, 8, 16, 32]

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, H, W)."""
        x = images
        maps = {}
        for name, child in self.named_children():
            x = child(x)
            if name.startswith("layer"):
                maps[f"c{int(name[-1]) + 1}"] = x
        return maps

    def load(self, tensors: dict[str, Tensor], where: str | Path = "ResNet weights") -> None:
        """Fill from a classifier's published weights, whose last layer goes."""
        kept = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
        load_strictly(self, kept, where)
