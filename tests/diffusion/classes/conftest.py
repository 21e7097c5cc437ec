"""A tiny class-conditional model of grey shapes, and a folder of its data."""

import numpy as np
import pytest
import torch

from shared.diffusion.classes.data import load_classes
from shared.diffusion.classes.erasers import ForgottenClass
from shared.diffusion.options import DiffusionRecipe, NoiseSchedule
from shared.diffusion.world.grey_shapes import draw_grey_shapes
from shared.diffusion.zoo.class_diffusion import ClassDiffusion, build_class_unet
from shared.diffusion.zoo.options import ClassDiffusionRecipe, ClassifierRecipe, ClassUnetShape

SHAPE = ClassUnetShape(channels=8, multipliers=(1,), num_blocks=1, attention=(), dropout=0.0, groups=4)
NOISE = NoiseSchedule(num_train_timesteps=10, beta_start=0.01, beta_end=0.6, beta_schedule="linear")
RECIPE = ClassDiffusionRecipe(unet=SHAPE, noise=NOISE, train=DiffusionRecipe(steps=2, batch=8, lr=1e-3, ema=0.5))
JUDGE = ClassifierRecipe(widths=(4,), num_features=6, epochs=1, batch=40)


@pytest.fixture(autouse=True)
def grey_data(tmp_path, monkeypatch):
    """A pulled data set grey_shapes of 40 training images."""
    folder = tmp_path / "data" / "grey_shapes"
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part, num in (("train", 40), ("test", 8)):
        labels = np.arange(num) % 4
        np.save(folder / f"{part}_images.npy", draw_grey_shapes(labels, random))
        np.save(folder / f"{part}_labels.npy", labels)
    monkeypatch.setattr("shared.diffusion.classes.data.pull", lambda name: folder.with_name(name))
    return folder


@pytest.fixture
def model():
    """Untrained, but with a last layer that is not zero."""
    unet = build_class_unet(RECIPE, torch.zeros(1, 1, 12, 12), 4, seed=0)
    return ClassDiffusion(unet.eval().requires_grad_(False), NOISE)


@pytest.fixture
def forgotten():
    """Discs are forgotten."""
    data = load_classes("grey_shapes", "train", "cpu")
    return ForgottenClass(1, data.of(1), data.without(1))


@pytest.fixture
def recipe_of():
    """stage -> its recipe, as the protocol gives it."""

    def made(stage, **more):
        common = {"track": "diffusion", "stage": stage, "kind": "class_conditional", "data": "grey_shapes", "seed": 0}
        return {**common, "recipe": RECIPE.model_dump(mode="json"), **more}

    return made


@pytest.fixture
def judge():
    """Recipe of the classifier."""
    return JUDGE
