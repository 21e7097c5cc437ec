"""He's narrow CIFAR ResNets, 6n+2 layers of 16, 32, 64 channels (arXiv:1512.03385, section 4.2),
and the weights published by github.com/akamaster/pytorch_resnet_cifar10 (BSD-2; pixels normalised
with ImageNet's mean and std)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.errors import DataError
from shared.models.normalize import Normalize

PUBLISHED_MEAN, PUBLISHED_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut has no weights (option A).

    It takes every second pixel, and zeros for the channels that are missing.
    """

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self._stride, self._missing = stride, num_out - num_in

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_in, H, W) to (B, num_out, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        shortcut = x
        if self._missing:
            half = self._missing // 2  # zero channels before and after, as in the published weights
            shortcut = F.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, half, self._missing - half))
        return F.relu(self.bn2(self.conv2(y)) + shortcut, inplace=True)


class ResNetHe(nn.Module):
    """Three stages of `blocks` blocks: 6 * blocks + 2 layers."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            _stage(16, 16, blocks),
            _stage(16, 32, blocks),
            _stage(32, 64, blocks),
        )
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to pooled features (B, 64)."""
        x = F.relu(self.bn1(self.conv1(self.normalize(images))), inplace=True)
        maps: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return maps.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def resnet20_he(num_classes: int, in_channels: int = 3) -> ResNetHe:
    """269,722 parameters with 10 classes."""
    return ResNetHe(3, num_classes, in_channels)


def resnet56_he(num_classes: int, in_channels: int = 3) -> ResNetHe:
    """853,018 parameters with 10 classes."""
    return ResNetHe(9, num_classes, in_channels)


def load_published(path: str | Path) -> ResNetHe:
    """Network and weights of a published file (10 classes), normalisation included.

    The depth is read from the file. Raises DataError naming the file when it is not such a
    checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved: dict[str, Tensor] = {
            name.removeprefix("module.").replace("linear.", "fc."): value
            for name, value in content["state_dict"].items()
        }
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint; pull its data set first") from None
    except Exception as error:  # torch raises a dozen types for a damaged or foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a checkpoint of the published CIFAR ResNets ({reason})") from None
    blocks = len({name.split(".")[1] for name in saved if name.startswith("layer1.")})
    model = ResNetHe(blocks, num_classes=10)
    try:
        model.load_state_dict(saved)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a checkpoint of the published CIFAR ResNets ({reason})") from None
    model.normalize = Normalize(PUBLISHED_MEAN, PUBLISHED_STD)
    return model.eval()


def _stage(num_in: int, num_out: int, blocks: int) -> nn.Sequential:
    first = Block(num_in, num_out, stride=1 if num_in == num_out else 2)
    return nn.Sequential(first, *(Block(num_out, num_out, stride=1) for _ in range(blocks - 1)))
