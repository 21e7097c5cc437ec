"""All-CNN (Springenberg et al., arXiv:1412.6806), in the form that Boundary Unlearning uses."""

from torch import Tensor, nn


class AllCNN(nn.Module):
    """Blocks of convolution (no bias), batch norm, ReLU: 3x3 c, c, 2c (stride 2), 2c, 2c, 2c
    (stride 2), 2c, then 1x1 2c; global average pool (8x8 for 32-pixel images); linear."""

    def __init__(self, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        wide = 2 * width
        self.body = nn.Sequential(
            *_block(in_channels, width),
            *_block(width, width),
            *_block(width, wide, stride=2),
            *_block(wide, wide),
            *_block(wide, wide),
            *_block(wide, wide, stride=2),
            *_block(wide, wide),
            *_block(wide, wide, kernel=1),
        )
        self.fc = nn.Linear(wide, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to pooled features (B, 2 * width)."""
        maps: Tensor = self.body(self.normalize(images))
        return maps.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


class AllCnnMlp(AllCNN):
    """AllCNN with a classifier of two layers: pooled features, 384 ReLU units, classes (DUCK's variant).

    `features` are the hidden units: what the last layer sees, as in every network here.
    """

    def __init__(self, width: int, num_hidden: int, num_classes: int, in_channels: int) -> None:
        super().__init__(width, num_classes, in_channels)
        self.hidden = nn.Linear(2 * width, num_hidden)
        self.fc = nn.Linear(num_hidden, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to hidden units (B, num_hidden)."""
        return self.hidden(super().features(images)).relu()


def all_cnn_half(num_classes: int, in_channels: int = 3) -> AllCNN:
    """Half width, 406,810 parameters with 10 classes: that of Boundary Unlearning's numbers."""
    return AllCNN(48, num_classes, in_channels)


def all_cnn(num_classes: int, in_channels: int = 3) -> AllCNN:
    """Full width, 1,620,010 parameters with 10 classes."""
    return AllCNN(96, num_classes, in_channels)


def all_cnn_mlp(num_classes: int, in_channels: int = 3) -> AllCnnMlp:
    """Full width and two-layer classifier, 1,696,042 parameters with 10 classes."""
    return AllCnnMlp(96, 384, num_classes, in_channels)


def _block(num_in: int, num_out: int, stride: int = 1, kernel: int = 3) -> list[nn.Module]:
    conv = nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)]
