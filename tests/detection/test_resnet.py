"""ResNet backbones: maps, strides, torchvision's names."""

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from shared.detection.options import ResNetOptions
from shared.detection.resnet import ResNet
from shared.errors import DataError


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_channels_and_strides(kind):
    with torch.device("meta"):
        backbone = ResNet(ResNetOptions(kind=kind))
        maps = backbone(torch.zeros(2, 3, 64, 96), torch.tensor([[64, 96]] * 2))
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    for value, width, stride in zip(maps.values(), backbone.channels, backbone.strides, strict=True):
        assert value.shape == (2, width, 64 // stride, 96 // stride)


def test_published_weights_load_and_maps_are_torchvisions():
    whole = torchvision.models.resnet18().eval()
    layers = {f"layer{i}": f"c{i + 1}" for i in range(1, 5)}
    images = torch.rand(1, 3, 64, 64)
    expected = create_feature_extractor(whole, layers)(images)
    for frozen in (False, True):
        backbone = ResNet(ResNetOptions(frozen_norm=frozen)).eval()
        backbone.load(whole.state_dict())
        torch.testing.assert_close(backbone(images, torch.tensor([[64, 64]])), dict(expected), atol=1e-4, rtol=1e-4)
    assert not any(p.requires_grad for n, p in backbone.named_parameters() if "bn" in n)


def test_weights_of_another_size():
    with torch.device("meta"):
        weights = torchvision.models.resnet34().state_dict()
        backbone = ResNet(ResNetOptions())
    with pytest.raises(DataError, match=r"r34.pth: does not fit this ResNet .Unexpected key") as caught:
        backbone.load(weights, "r34.pth")
    assert "\n" not in str(caught.value)
