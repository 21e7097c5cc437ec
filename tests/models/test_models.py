import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from shared.errors import ConfigError, DataError
from shared.models.build import MODELS, build, load_model, save_model
from shared.models.normalize import Normalize
from shared.models.resnet_he import Block, load_published

# parameters with 10 classes and 3 channels; for resnet18_cifar also with 100
COUNTS = {
    "all_cnn": 1_620_010,
    "all_cnn_half": 406_810,
    "all_cnn_mlp": 1_696_042,
    "resnet18": 11_181_642,
    "resnet18_cifar": 11_173_962,
    "resnet18_cifar_dropout": 11_173_962,
    "resnet20_he": 269_722,
    "resnet34": 21_289_802,
    "resnet34_cifar_dropout": 21_282_122,
    "resnet50": 23_528_522,
    "resnet50_cifar": 23_520_842,
    "resnet50_cifar_dropout": 23_520_842,
    "resnet56_he": 853_018,
    "tiny_cnn": 15_706,
    "vgg16_bn_cifar": 14_728_266,
    "vgg_tiny": 36_122,
    "vit_b_16": 85_806_346,
}
# seconds and hundreds of MB
LARGE = {"vit_b_16"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in MODELS]


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def smallest_size(name):
    # with the ImageNet stem two images of 32 pixels are one pixel a channel each at the end: enough for batch norm
    return 32 if name in {"vgg16_bn_cifar", "resnet18", "resnet34", "resnet50"} else 8


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    with torch.device("meta"):  # shapes without memory
        assert num_parameters(MODELS[name](10, 3)) == COUNTS[name]
        if name == "resnet18_cifar":
            assert num_parameters(MODELS[name](100, 3)) == 11_220_132


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_forward_and_backward(name, in_channels):
    model = build(name, 7, in_channels, mean=[0.5] * in_channels, std=[0.25] * in_channels, seed=0)
    images = torch.rand(2, in_channels, smallest_size(name), smallest_size(name))
    logits = model(images)
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    model.eval()
    torch.testing.assert_close(model.fc(model.features(images)), model(images))
    assert model.fc.out_features == 7


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_the_disk(name, tmp_path):
    model, other = build(name, 4, seed=0), build(name, 4, seed=1)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    save_model(model.to(memory_format=torch.channels_last), tmp_path / "model.safetensors")
    assert load_model(other, tmp_path / "model.safetensors") is other
    for (key, value), loaded in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, loaded), key


def test_a_seed_is_a_network_and_leaves_the_global_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (
        build("tiny_cnn", 3, seed=0),
        build("tiny_cnn", 3, seed=0),
        build("tiny_cnn", 3, seed=1),
    )
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert not torch.equal(first.fc.weight, third.fc.weight)
    torch.manual_seed(0)
    assert torch.equal(build("tiny_cnn", 3).fc.weight, first.fc.weight)  # without a seed: the global state


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ConfigError, match=r"model 'resnet18_cifra' is unknown .did you mean 'resnet18_cifar'"):
        build("resnet18_cifra", 10)


def test_normalisation_is_checked():
    with pytest.raises(ConfigError, match="needs both mean and std"):
        build("tiny_cnn", 10, mean=[0.5] * 3)
    with pytest.raises(ConfigError, match="3 channels but mean has 1"):
        build("tiny_cnn", 10, mean=[0.5], std=[0.5])


def test_normalisation_is_inside_the_model_and_no_weight():
    plain = build("tiny_cnn", 5, seed=0).eval()
    inside = build("tiny_cnn", 5, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), seed=0).eval()
    assert isinstance(inside.normalize, Normalize)
    assert inside.state_dict().keys() == plain.state_dict().keys()
    assert [n for n, _ in inside.named_parameters()] == [n for n, _ in plain.named_parameters()]
    images = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    normalised = ((images.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(inside(images), plain(normalised))


def test_weights_of_another_model_name_the_first_difference(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(build("tiny_cnn", 10), path)
    with pytest.raises(DataError, match=r"model.safetensors: 'fc.bias' has shape \(10,\), this model wants \(4,\)"):
        load_model(build("tiny_cnn", 4), path)
    with pytest.raises(DataError, match=r"has no weights 'bn1.bias': it belongs to another model"):
        load_model(build("resnet20_he", 10), path)
    save_file({**build("tiny_cnn", 4).state_dict(), "fc.weigth": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"'fc.weigth' are unknown to this model .did you mean 'fc.weight'"):
        load_model(build("tiny_cnn", 4), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"not a readable model file .*run its stage again"):
        load_model(build("tiny_cnn", 4), path)
    with pytest.raises(DataError, match="no such model file"):
        load_model(build("tiny_cnn", 4), tmp_path / "none.safetensors")


def test_option_a_shortcut_keeps_every_second_pixel_between_zero_channels():
    block = Block(16, 32, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # the residual branch is silent: what comes out is the shortcut
    x = torch.rand(1, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_resnet18_weights_start_kaiming_normal_by_fan_out():
    weight = build("resnet18_cifar", 10, seed=0).layer4[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_published_layout_is_mapped(tmp_path):
    model = build("resnet20_he", 10, seed=0).eval()
    saved = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": saved, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    loaded = load_published(tmp_path / "resnet20.th")
    images = torch.rand(2, 3, 32, 32)
    normalised = loaded.normalize(images)
    torch.testing.assert_close(loaded(images), model(normalised))
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(1)}}, tmp_path / "other.th")
    for path in ("other.th", "none.th"):
        with pytest.raises(DataError, match=path):
            load_published(tmp_path / path)


@pytest.fixture(scope="module")
def cifar10_test_images(data_mirror):
    classes: dict[str, list[np.ndarray]] = {}
    with tarfile.open(data_mirror / "cifar10_jpeg" / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and "test" in parts:
                image = np.asarray(Image.open(archive.extractfile(member)).convert("RGB"))
                classes.setdefault(parts[-2], []).append(image)
    images = np.stack([image for name in sorted(classes) for image in classes[name]])
    labels = np.repeat(np.arange(10), [len(classes[name]) for name in sorted(classes)])
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "accuracy"), [("resnet20-12fca82f.th", 81.03), ("resnet56-4bfd9763.th", 83.20)])
def test_published_weights_score_as_measured(file, accuracy, cifar10_test_images, data_mirror):
    images, labels = cifar10_test_images
    assert len(labels) == 10_000
    model = load_published(data_mirror / "resnet_cifar10" / file)
    with torch.inference_mode():
        predictions = torch.cat([model(part.float() / 255).argmax(1) for part in images.split(500)])
    assert 100 * (predictions == labels).double().mean().item() == pytest.approx(accuracy, abs=0.011)
