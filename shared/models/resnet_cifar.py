"""ResNets of 64 to 512 channels for small images (He et al., arXiv:1512.03385; the CIFAR stem of
SalUn's code).

The stem is one 3x3 convolution of stride 1 without max-pool. With the ImageNet stem of the same
name CIFAR images would shrink to 8x8 before the first block, and accuracy falls by many points.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (1x1 convolution where the shape changes)."""

    expansion = 1

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(num_in, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_in, H, W) to (B, width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions; four times the width comes out."""

    expansion = 4

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        num_out = width * self.expansion
        self.conv1 = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.downsample = _shortcut(num_in, num_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_in, H, W) to (B, 4 * width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class ResNetCifar(nn.Module):
    """Four stages of 64, 128, 256, 512 channels, global average pool, one linear layer.

    dropout: share of pooled features that the head does not see in training.
    """

    # `load_pretrained`: weights for ImageNet have torchvision's names, and another stem.
    fresh = ("conv1.",)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        num_blocks: tuple[int, ...],
        num_classes: int,
        in_channels: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages: list[nn.Module] = []
        num_in = 64
        for stage, count in enumerate(num_blocks):
            width = 64 * 2**stage
            blocks: list[nn.Module] = []
            for index in range(count):
                blocks.append(block(num_in, width, stride=2 if stage > 0 and index == 0 else 1))
                num_in = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(num_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to pooled features (B, 512) or, with bottlenecks, (B, 2048)."""
        x = F.relu(self.bn1(self.conv1(self.normalize(images))), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.dropout(self.features(images)))
        return logits


def resnet18_cifar(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """11,173,962 parameters with 10 classes, 11,220,132 with 100."""
    return ResNetCifar(BasicBlock, (2, 2, 2, 2), num_classes, in_channels)


def resnet50_cifar(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """23,520,842 parameters with 10 classes."""
    return ResNetCifar(Bottleneck, (3, 4, 6, 3), num_classes, in_channels)


def resnet18_cifar_dropout(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """resnet18_cifar with DUCK's head: dropout of 0.4 before the last layer."""
    return ResNetCifar(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, dropout=0.4)


def resnet34_cifar_dropout(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """21,282,122 parameters with 10 classes; head as resnet18_cifar_dropout."""
    return ResNetCifar(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, dropout=0.4)


def resnet50_cifar_dropout(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """resnet50_cifar with the head of resnet18_cifar_dropout."""
    return ResNetCifar(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, dropout=0.4)


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch every dropout layer of `model` off, in train mode too; returns the model."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _shortcut(num_in: int, num_out: int, stride: int) -> nn.Module:
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride=stride, bias=False), nn.BatchNorm2d(num_out))
