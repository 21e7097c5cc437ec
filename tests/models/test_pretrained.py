"""Published backbones: torchvision's names and outputs, fresh heads and stems, one line on a mismatch."""

import pytest
import torch

from shared.data.manifest import load_manifest
from shared.errors import DataError
from shared.models.build import build, load_pretrained
from shared.models.resnet_cifar import without_dropout


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def published(name):
    """torchvision's own network with 1000 classes and weights of its own."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return getattr(torchvision.models, name)().eval()


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """The network and a file in the layout that torchvision publishes: a plain state dict."""
    net = published("resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18-f37072fd.pth"
    torch.save(net.state_dict(), path)
    return net, path


def test_the_backbone_is_torchvisions_and_the_head_stays_fresh(resnet18):
    net, path = resnet18
    model = build("resnet18", 10, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), seed=0).eval()
    head = model.fc.weight.clone()
    assert load_pretrained(model, path) is model
    assert torch.equal(model.fc.weight, head)
    images = torch.rand(2, 3, 64, 64)
    net_features = torch.nn.Sequential(*list(net.children())[:-1])
    torch.testing.assert_close(model.features(images), net_features(model.normalize(images)).flatten(1))


def test_a_small_stem_stays_fresh_too(resnet18):
    net, path = resnet18
    model = build("resnet18_cifar_dropout", 100, seed=0)
    stem, own = model.conv1.weight.clone(), model.state_dict()
    load_pretrained(model, path)
    assert torch.equal(model.conv1.weight, stem)
    for name, value in net.state_dict().items():
        if not name.startswith(("conv1.", "fc.")):
            assert torch.equal(own[name], value), name


def test_another_network_is_one_line_with_the_first_difference(resnet18, tmp_path):
    net, path = resnet18
    with pytest.raises(DataError, match=r"resnet18-f37072fd.pth: has no weights 'layer1.0.bn3.bias'"):
        load_pretrained(build("resnet50", 10, seed=0), path)
    with pytest.raises(
        DataError, match=r"'conv1.weight' has shape \(64, 3, 7, 7\), this network wants \(64, 1, 7, 7\)"
    ):
        load_pretrained(build("resnet18", 10, in_channels=1, seed=0), path)
    torch.save({**net.state_dict(), "layer1.0.conv9.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(
        DataError, match=r"more.pth: weights 'layer1.0.conv9.weight' are unknown .*did you mean 'layer1"
    ):
        load_pretrained(build("resnet18", 10, seed=0), tmp_path / "more.pth")
    with pytest.raises(DataError, match=r"none.pth: no such checkpoint"):
        load_pretrained(build("resnet18", 10, seed=0), tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "vit_b_16"])
def test_manifests_carry_the_digest_that_the_file_name_announces(name):
    import torchvision

    (file,) = load_manifest(f"torchvision_{name}").files
    assert file.name.split("-")[1] == f"{file.sha256[0][:8]}.pth"
    assert torchvision.models.get_weight(file.torchvision).url.endswith(f"/{file.name}")


@pytest.mark.slow
def test_the_transformer_is_torchvisions_at_its_own_size(tmp_path):
    net = published("vit_b_16")
    torch.save(net.state_dict(), tmp_path / "vit_b_16-c867db91.pth")
    model = load_pretrained(build("vit_b_16", 10, seed=0).eval(), tmp_path / "vit_b_16-c867db91.pth")
    images, tokens = torch.rand(1, 3, 224, 224), []
    net.encoder.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    with torch.no_grad():
        net(images)
        torch.testing.assert_close(model.features(images), tokens[0][:, 0])
        # another size is resized inside: 112 pixels, each doubled, are close to the same picture
        assert model.features(images[:, :, ::2, ::2]).shape == (1, 768)


def test_dropout_can_be_switched_off_for_unlearning():
    model = build("resnet18_cifar_dropout", 10, seed=0)
    for module in model.modules():  # batch statistics would differ from pass to pass as well
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    images = torch.rand(4, 3, 8, 8)
    model.train()
    assert not torch.equal(model(images), model(images))
    assert without_dropout(model) is model
    assert torch.equal(model(images), model(images))


def test_dropout_head_has_the_expectation_of_the_plain_one():
    model, plain = build("resnet18_cifar_dropout", 10, seed=0).eval(), build("resnet18_cifar", 10, seed=0).eval()
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(images), plain(images))
    features = torch.ones(20_000, 8)
    assert model.dropout.train()(features).mean().item() == pytest.approx(1, abs=0.01)
