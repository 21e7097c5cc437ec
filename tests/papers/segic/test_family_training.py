"""The small backbone: classes of patches, and that it learns them."""

import numpy as np
import pytest
import torch

from papers.segic.backbone import build
from papers.segic.family_training import patch_classes, pictures, train
from papers.segic.options import Backbone, FamilyRecipe
from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.samples import Sample
from tests.papers.segic.scenes import Instanced, picture


class Scenes(Context):
    def source(self, name):
        return Instanced(12)


def test_a_patch_has_the_class_of_half_its_pixels():
    labels = np.zeros((8, 8), np.int32)
    labels[:4, :2], labels[:4, 4:], labels[4:, :1] = 1, 2, 1
    assert patch_classes(labels, np.array([5, 0]), 4).tolist() == [[6, 1], [0, 0]]


def test_it_learns_and_writes_down_what_it_is():
    options = Backbone(name="small_vit", image=32, training=FamilyRecipe(epochs=4, steps_per_epoch=10, batch=4))
    model, context = build(None, options, 0), Scenes(torch.device("cpu"), 0, 1, {})
    before = model.digest.clone()
    train(model, None, options, context)
    history = context.fits[0].history
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert not torch.equal(model.digest, before)
    assert not any(p.requires_grad for p in model.parameters())


def test_without_a_recipe_the_weights_stay_random():
    options = Backbone(name="small_vit", image=32)
    model = build(None, options, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, None, options, Scenes(torch.device("cpu"), 0, 1, {}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_images_of_another_size_are_resized_with_their_labels():
    images, classes = pictures(Instanced(1), Backbone(name="small_vit", image=64))
    assert images.shape == (1, 3, 64, 64)
    _, same = pictures(Instanced(1), Backbone(name="small_vit", image=32))
    assert classes.shape == (1, 16, 16)
    assert set(classes.unique().tolist()) == set(same.unique().tolist()) == {0, 1, 2}


class Plain(Instanced):
    """Soft masks."""

    def __getitem__(self, index):
        return Sample("plain", picture(index)[0], np.zeros((32, 32), np.uint8))


def test_other_truths_are_refused():
    with pytest.raises(DataError, match="learns from instance maps"):
        pictures(Plain(1), Backbone(name="small_vit", image=32))
