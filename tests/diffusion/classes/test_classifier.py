"""The fine-tuned judge: published backbone, new head, two learning rates, images enlarged."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shared.diffusion.classes.classifier import FineTunedClassifier, fine_tune_classifier
from shared.diffusion.classes.models import load_class_classifier, save_class_classifier
from shared.diffusion.zoo.options import FineTunedRecipe
from shared.models.build import build
from shared.training.device_images import DeviceImages

RECIPE = FineTunedRecipe(
    kind="torchvision", architecture="resnet18", size=32, epochs=1, batch=4, lr=1e-12, head_lr=1e-2
)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file in the layout of torchvision's ResNet-18, with a head of 1000 classes."""
    path = tmp_path / "resnet18.safetensors"
    save_file(build("resnet18", 1000, seed=5).state_dict(), path)
    monkeypatch.setattr("shared.diffusion.classes.classifier.checkpoint_file", lambda name: path)
    return build("resnet18", 1000, seed=5)


@pytest.fixture
def images():
    pixels = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (8, 3, 16, 16), dtype=np.uint8))
    return DeviceImages(pixels, torch.arange(8) % 3, 3)


def test_backbone_starts_as_published_and_the_head_learns(published, images):
    model, fit = fine_tune_classifier(images, ["a", "b", "c"], RECIPE, seed=1)
    untrained, _ = fine_tune_classifier(images, ["a", "b", "c"], RECIPE.model_copy(update={"head_lr": 1e-12}), seed=1)
    assert fit.steps == 2
    torch.testing.assert_close(model.network.layer1[0].conv1.weight, published.layer1[0].conv1.weight)
    assert (model.outputs["class"].weight - untrained.outputs["class"].weight).abs().max() > 1e-3
    assert untrained.outputs["class"].bias.abs().max() < 1e-9
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_images_are_enlarged_and_normalised_by_one_half(published, images):
    model, _ = fine_tune_classifier(images, ["a", "b", "c"], RECIPE, seed=1)
    seen = []
    model.network.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found = model(torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)]))
    assert found["class"].shape == (2, 3)
    assert seen[0].shape == (2, 3, 32, 32)
    assert (seen[0].amin((1, 2, 3)).tolist(), seen[0].amax((1, 2, 3)).tolist()) == ([-1, 1], [-1, 1])


def test_saved_and_read_again(published, images, tmp_path):
    model, _ = fine_tune_classifier(images, ["a", "b", "c"], RECIPE, seed=1)
    save_class_classifier(model, "torchvision", tmp_path / "out")
    again = load_class_classifier(tmp_path / "out", "cpu")
    assert isinstance(again, FineTunedClassifier)
    pixels = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(again.features(pixels), model.features(pixels))
    assert torch.equal(again.predict(pixels, batch=2)["class"], model.predict(pixels)["class"])
