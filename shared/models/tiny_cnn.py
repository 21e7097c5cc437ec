"""The small network of the `mini` runs: about 15 thousand parameters, for 8x8 digits."""

from torch import Tensor, nn


class TinyCNN(nn.Module):
    """3x3 convolutions of 16, 32 (stride 2), 32 channels with batch norm and ReLU, average pool to
    2x2, linear layer from 128."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.body = nn.Sequential(
            *_block(in_channels, 16),
            *_block(16, 32, stride=2),
            *_block(32, 32),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.fc = nn.Linear(4 * 32, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the input of the last layer (B, 128)."""
        features: Tensor = self.body(self.normalize(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def _block(num_in: int, num_out: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)]
