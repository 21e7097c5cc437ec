"""The world's models: quick checks on small recipes, and (slow) the acceptance numbers of the shared recipe."""

import pytest
import torch
from torch import Tensor

from shared.data.pull import pull
from shared.diffusion.options import DiffusionRecipe, SampleOptions
from shared.diffusion.text_to_image import load_text_to_image
from shared.diffusion.world.read import read_grey_shapes, read_world, unit
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import HEADS, OBJECTS, caption
from shared.diffusion.zoo.classifier import ShapeClassifier, train_classifier
from shared.diffusion.zoo.options import ClassifierRecipe, TextTowerRecipe, WorldRecipe
from shared.diffusion.zoo.text_tower import (
    build_clip,
    image_features,
    info_nce,
    text_encoder_of,
    text_features,
    train_clip,
    zero_shot,
)
from shared.diffusion.zoo.world import build_unet, drawn_accuracy, make_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pull("shapes_styles", tmp_path_factory.mktemp("data"))


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ---- sizes


def test_sizes_of_the_shared_recipe():
    recipe, tokenizer = WorldRecipe(), world_tokenizer()
    assert num_parameters(build_unet(recipe, 8, 0)) == 1_006_444
    assert num_parameters(text_encoder_of(build_clip(recipe.text, tokenizer, 32, 0))) == 70_592


# ---- text tower


@pytest.fixture(scope="module")
def clip(small):
    return build_clip(small.text, world_tokenizer(), 32, seed=0)


@pytest.fixture(scope="module")
def small():
    from shared.diffusion.zoo.options import UnetShape

    text = TextTowerRecipe(width=16, layers=1, heads=2, steps=3, batch=8)
    train = DiffusionRecipe(steps=3, batch=8, snr_gamma=5.0, ema=0.5)
    return WorldRecipe(text=text, unet=UnetShape(widths=(16, 16), heads=2, groups=4), train=train)


def test_info_nce_of_orthogonal_pairs(clip):
    """Matched pairs far apart: no loss; all the same: log of the batch size."""
    same = torch.ones(4, 16) / 4
    assert float(info_nce(same, same, clip)) == pytest.approx(float(torch.tensor(4.0).log()), rel=1e-4)
    assert float(info_nce(torch.eye(4, 16), torch.eye(4, 16), clip)) < 1e-4


def test_the_tower_as_a_text_encoder_gives_the_clips_states(clip):
    ids = torch.tensor(world_tokenizer()(["a red circle", "a hoop"], padding="max_length")["input_ids"])
    encoder = text_encoder_of(clip)
    assert torch.equal(encoder(ids).last_hidden_state, clip.text_model(ids).last_hidden_state)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_words_start_far_apart():
    table = build_clip(TextTowerRecipe(), world_tokenizer(), 32, 0).text_model.get_input_embeddings().weight
    assert float(table.std()) == pytest.approx(0.5, rel=0.05)


def test_contrast_brings_pairs_together(clip, world_images):
    images, captions = world_images
    ids = torch.tensor(world_tokenizer()(captions, padding="max_length")["input_ids"])
    recipe = TextTowerRecipe(width=16, layers=1, heads=2, steps=40, batch=16, lr=5e-3)
    trained = build_clip(recipe, world_tokenizer(), 32, seed=0)
    result = train_clip(trained, images, ids, recipe, seed=0)
    before, after = (
        float(info_nce(image_features(model, images), text_features(model, ids), model)) for model in (clip, trained)
    )
    assert result.steps == 40
    assert after < before - 0.3


# ---- classifier


def grey(folder_root):
    return read_grey_shapes(pull("grey_shapes", folder_root), "train")


GREY = ClassifierRecipe(widths=(16, 32), num_features=32, epochs=30, batch=64, lr=3e-3, noise=0.1)


def test_classifier_of_grey_shapes(tmp_path):
    images, labels = grey(tmp_path)
    few = ClassifierRecipe(widths=(4, 8), num_features=8, epochs=1, batch=64)
    heads = {"object": ["square", "disc", "cross", "triangle"]}
    model, result = train_classifier(images, labels[:, None], heads, few, seed=0)
    again, _ = train_classifier(images, labels[:, None], heads, few, seed=0)
    assert result.steps == 25
    assert torch.equal(model.predict(unit(images))["object"], again.predict(unit(images))["object"])
    assert model.features(unit(images[:3])).shape == (3, 8)
    assert model(unit(images[:3]))["object"].shape == (3, 4)
    model.save_pretrained(tmp_path / "classifier")
    read = ShapeClassifier.from_pretrained(tmp_path / "classifier")
    assert torch.equal(read.features(unit(images[:3])), model.features(unit(images[:3])))
    assert read.config.heads == heads


# ---- the whole


def test_a_small_world_is_repeatable_and_can_be_read(folder, small, tmp_path):
    first, second = make_world(folder, small, 0), make_world(folder, small, 0)
    other = make_world(folder, small, 1)
    assert {name: result.steps for name, result in first.fits.items()} == {"text tower": 3, "U-Net": 3}
    assert torch.equal(first.pipe.unet.conv_in.weight, second.pipe.unet.conv_in.weight)
    assert not torch.equal(first.pipe.unet.conv_in.weight, other.pipe.unet.conv_in.weight)
    first.save(tmp_path)
    pipe = load_text_to_image(tmp_path / "pipeline")
    options = SampleOptions(num_steps=2, guidance=4.0)
    drawn: list[Tensor] = [which.generate(["a disc"], [3], options) for which in (pipe, first.pipe)]
    assert torch.allclose(drawn[0], drawn[1], atol=1e-4)
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(image_features(clip, images), image_features(first.clip, images), atol=1e-5)


def test_drawn_accuracy_asks_for_every_prompt_once(pipe):
    from shared.diffusion.zoo.classifier import ShapeClassifier

    classifier = ShapeClassifier(heads=HEADS, widths=(4,), num_features=8)
    found = drawn_accuracy(pipe, classifier, SampleOptions(num_steps=1, guidance=1.0), seed=0, words=(0,))
    assert set(found) == {"object", "style", "colour"}
    assert all(value * 72 == pytest.approx(round(value * 72)) for value in found.values())


@pytest.mark.slow
def test_acceptance_of_the_world(folder):
    """Numbers that the papers of the world build on (two cores: see the track's benchmark)."""
    train, test = (read_world(folder, part) for part in ("train", "test"))
    classifier, _ = train_classifier(train.images, train.labels, HEADS, ClassifierRecipe(), seed=0)
    world = make_world(folder, WorldRecipe(), seed=0)
    clean = unit(test.images)
    for images in (clean, world.pipe.to_images(world.pipe.to_latents(clean))):
        found = classifier.predict(images)
        right = [(found[head] == test.labels[:, column]).float().mean() for column, head in enumerate(HEADS)]
        assert min(right) > 0.99
    captions = [[caption(word) for word in words] for words in OBJECTS.values()]
    shown = zero_shot(world.clip, world.pipe.tokenizer, clean, captions)
    assert float((shown == test.labels[:, 0]).float().mean()) > 0.9
    every = [drawn_accuracy(world.pipe, classifier, SampleOptions(num_steps=12, guidance=4.0), seed) for seed in (0, 1)]
    drawn = {head: sum(found[head] for found in every) / len(every) for head in HEADS}
    assert drawn["object"] > 0.8
    assert drawn["colour"] > 0.95
    # 0.69 of 288 images: half of what is asked for in neon has no dark ground, because the noisiest level of this
    # schedule still shows how bright an image is, and a drawing starts from noise of medium brightness
    assert drawn["style"] > 0.65
