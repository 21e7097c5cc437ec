"""VGG with batch norm (Simonyan & Zisserman, arXiv:1409.1556) and, as in SalUn, one linear."""

from torch import Tensor, nn

# Channels of the 3x3 convolutions; 0 is a 2x2 max-pool. Five pools take 32 pixels to 1.
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
# For 8x8 images: 2x2 remain for the average pool.
TINY = (16, 16, 0, 32, 32, 0, 64)


class Vgg(nn.Module):
    """Convolutions with bias, batch norm, ReLU by a list of widths; average pool; linear."""

    def __init__(self, widths: tuple[int, ...], num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        layers: list[nn.Module] = []
        num_in = in_channels
        for width in widths:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(num_in, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            num_in = width
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(num_in, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to pooled features (B, last width)."""
        maps: Tensor = self.body(self.normalize(images))
        return maps.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def vgg16_bn_cifar(num_classes: int, in_channels: int = 3) -> Vgg:
    """14,728,266 parameters with 10 classes; images of at least 32 pixels."""
    return Vgg(VGG16, num_classes, in_channels)


def vgg_tiny(num_classes: int, in_channels: int = 3) -> Vgg:
    """The same network at the size of 8x8 images."""
    return Vgg(TINY, num_classes, in_channels)
