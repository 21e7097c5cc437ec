"""The class-conditional diffusion model: DDPM's architecture to the parameter, guidance, average, drawing."""

import pytest
import torch

from shared.diffusion.options import DiffusionRecipe, NoiseSchedule, SampleOptions
from shared.diffusion.zoo.class_diffusion import (
    ClassDiffusion,
    build_class_unet,
    load_class_diffusion,
    train_class_diffusion,
)
from shared.diffusion.zoo.class_unet import ClassUnet, num_parameters
from shared.diffusion.zoo.options import ClassDiffusionRecipe, ClassUnetShape

SHAPE = ClassUnetShape(channels=8, multipliers=(1, 2), num_blocks=1, attention=(6,), dropout=0.0, groups=4)
NOISE = NoiseSchedule(num_train_timesteps=50, beta_start=0.002, beta_end=0.4, beta_schedule="linear")
DRAW = SampleOptions(num_steps=5, guidance=2.0)


def recipe_of(**changes):
    train = {"steps": 3, "batch": 8, "lr": 1e-3, "weight_decay": 0.0, **changes}
    return ClassDiffusionRecipe(unet=SHAPE, noise=NOISE, train=DiffusionRecipe(**train))


def images_of(num=16):
    return torch.randint(0, 256, (num, 1, 12, 12), dtype=torch.uint8), torch.arange(num) % 4


@pytest.fixture
def unet():
    return build_class_unet(recipe_of(), images_of()[0], 4, seed=0).eval()


def test_cifar_architecture_has_its_38_632_323_parameters():
    with torch.device("meta"):
        unet = ClassUnet(**ClassDiffusionRecipe(train=DiffusionRecipe(steps=1)).unet.model_dump())
        assert num_parameters(unet) == 38_632_323
        assert unet(torch.empty(2, 3, 32, 32), torch.zeros(2), torch.zeros(2, dtype=torch.int64)).shape == (
            2,
            3,
            32,
            32,
        )


def test_attention_is_where_it_is_asked_for():
    """At 16 x 16 in both halves (2 and 3 blocks), and in the middle."""
    with torch.device("meta"):
        unet = ClassUnet()
    assert sum(".attention.q.weight" in name for name, _ in unet.named_parameters()) == 6


def test_prediction_depends_on_class_and_time_and_on_no_other_row(unet):
    noisy = torch.randn(1, 1, 12, 12).repeat(6, 1, 1, 1)
    classes, times = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([7, 7, 7, 7, 7, 8])
    predicted = unet(noisy, times, classes)
    assert len({tuple(row.flatten().tolist()) for row in predicted}) == 6
    alone = unet(noisy[:1], torch.tensor(7), classes[4:5])
    assert torch.allclose(alone[0], predicted[4], atol=1e-5)


def test_class_index_past_the_last_is_the_learned_null(unet):
    noisy = torch.randn(1, 1, 12, 12)
    without = unet(noisy, torch.tensor(3), torch.tensor([4]))
    unet.classes.weight.data += 1
    assert torch.equal(unet(noisy, torch.tensor(3), torch.tensor([4])), without)
    unet.null.data += 1
    assert not torch.equal(unet(noisy, torch.tensor(3), torch.tensor([4])), without)


def test_training_is_repeatable_and_keeps_an_average():
    (first, result), (second, _) = (train_class_diffusion(*images_of_fixed(), 4, recipe_of(ema=0.5), 1) for _ in "ab")
    assert result.steps == 3
    assert torch.equal(first.unet.conv_in.weight, second.unet.conv_in.weight)
    assert not torch.equal(first.average.conv_in.weight, first.unet.conv_in.weight)
    plain, _ = train_class_diffusion(*images_of_fixed(), 4, recipe_of(), 1)
    assert plain.average is None
    assert torch.equal(plain.unet.conv_in.weight, first.unet.conv_in.weight)  # the average changes no training


def images_of_fixed():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 1, 12, 12), dtype=torch.uint8, generator=generator), torch.arange(16) % 4


def test_images_depend_on_their_own_seed_and_class(unet):
    model = ClassDiffusion(unet, NOISE)
    labels = torch.tensor([0, 1, 2])
    for options in (DRAW, DRAW.model_copy(update={"eta": 1.0}), DRAW.model_copy(update={"scheduler": "ddpm"})):
        together = model.draw(labels, [1, 2, 3], options)
        in_parts = model.draw(labels, [1, 2, 3], options.model_copy(update={"batch": 2}))
        assert torch.allclose(together, in_parts, atol=1e-3)
        assert (together.min() >= 0) & (together.max() <= 1)
    assert model.draw(labels[:0], [], DRAW).shape == (0, 1, 12, 12)


def test_guidance(unet):
    """Scale 1 + w: 1 is the class alone, 0 forgets it."""
    model = ClassDiffusion(unet, NOISE)
    labels = torch.tensor([0, 1])
    forgetful = model.draw(labels, [5, 5], DRAW.model_copy(update={"guidance": 0.0}))
    assert torch.allclose(forgetful[0], forgetful[1], atol=1e-6)
    rows = []
    unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    model.draw(labels, [5, 6], DRAW)
    model.draw(labels, [5, 6], DRAW.model_copy(update={"guidance": 1.0}))
    assert rows == [4] * 5 + [2] * 5


def test_the_average_is_drawn_from(unet):
    from copy import deepcopy

    average = deepcopy(unet)
    average.conv_out.bias.data += 1
    model, labels = ClassDiffusion(unet, NOISE, average), torch.tensor([0])
    drawn = model.draw(labels, [1], DRAW)
    assert torch.equal(drawn, ClassDiffusion(average, NOISE).draw(labels, [1], DRAW))
    assert not torch.equal(drawn, model.draw(labels, [1], DRAW, unet))


def test_saved_and_read_again(tmp_path):
    model, _ = train_class_diffusion(*images_of_fixed(), 4, recipe_of(ema=0.5), 1)
    model.save(tmp_path)
    again = load_class_diffusion(tmp_path, NOISE)
    assert torch.equal(again.unet.null, model.unet.null)
    labels = torch.tensor([0, 3])
    assert torch.allclose(again.draw(labels, [1, 2], DRAW), model.draw(labels, [1, 2], DRAW), atol=1e-3)
