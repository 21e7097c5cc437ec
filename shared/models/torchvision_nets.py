"""Networks of torchvision with the ImageNet stem: ResNet-18, -34, -50 and ViT-B/16, weight names as published.

torchvision is imported when a network is made: it costs two seconds that no other network needs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageNetResNet(nn.Module):
    """A ResNet with torchvision's stem: 7x7 convolution of stride 2 and max-pool.

    32-pixel images reach the last stage as a single pixel: a batch of one cannot be trained on (batch norm).
    """

    def __init__(self, net: Any, in_channels: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.fc: nn.Linear = net.fc
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to pooled features (B, 512) or, with bottlenecks, (B, 2048)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(images)))))
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return maps.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


class ImageNetViT(nn.Module):
    """ViT-B/16 (Dosovitskiy et al., arXiv:2010.11929) at 224 pixels; other sizes are resized (bilinear) inside."""

    def __init__(self, net: Any, in_channels: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.class_token, self.conv_proj, self.encoder = net.class_token, net.conv_proj, net.encoder
        self.size: int = net.image_size
        self.fc: nn.Linear = net.heads.head
        if in_channels != 3:
            patch = self.conv_proj.kernel_size[0]
            self.conv_proj = nn.Conv2d(in_channels, self.conv_proj.out_channels, patch, stride=patch)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the class token after the last layer norm (B, 768). Signed, unlike pooled ReLUs."""
        pixels = self.normalize(images)
        if pixels.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", align_corners=False)
        patches = self.conv_proj(pixels).flatten(2).transpose(1, 2)
        tokens: Tensor = self.encoder(torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1))
        return tokens[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def resnet18(num_classes: int, in_channels: int = 3) -> ImageNetResNet:
    """11,181,642 parameters with 10 classes."""
    from torchvision.models import resnet18 as network

    return ImageNetResNet(network(num_classes=num_classes), in_channels)


def resnet34(num_classes: int, in_channels: int = 3) -> ImageNetResNet:
    """21,289,802 parameters with 10 classes."""
    from torchvision.models import resnet34 as network

    return ImageNetResNet(network(num_classes=num_classes), in_channels)


def resnet50(num_classes: int, in_channels: int = 3) -> ImageNetResNet:
    """23,528,522 parameters with 10 classes."""
    from torchvision.models import resnet50 as network

    return ImageNetResNet(network(num_classes=num_classes), in_channels)


def vit_b_16(num_classes: int, in_channels: int = 3) -> ImageNetViT:
    """85,806,346 parameters with 10 classes; the head starts at zero."""
    from torchvision.models import vit_b_16 as network

    return ImageNetViT(network(num_classes=num_classes), in_channels)
