"""Erasers of class-conditional models, behind the interface of all erasers."""

import copy

import pytest
import torch

from shared.diffusion.classes.erasers import ByLabelStates, class_context, class_esd, class_relabel
from shared.diffusion.classes.options import ClassErasingOptions, ClassEsdOptions
from shared.diffusion.erasers.class_conditional import erase_class
from shared.diffusion.erasers.noising import predict
from shared.diffusion.train import alphas_cumprod
from shared.errors import ConfigError
from shared.options import options_class
from shared.training.seeds import stream

RELABEL = ClassErasingOptions(iterations=2, batch=4, mask_batch=10, lr=1e-3)
ESD = ClassEsdOptions(iterations=3, batch=2, lr=1e-3, draw_steps=10)


def context_of(model, workdir=None):
    return class_context(model, lambda name: stream(3, name), workdir, "key")


def weights(model):
    return {name: value.clone() for name, value in model.unet.state_dict().items()}


def distance(left, right):
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_a_label_in_the_place_of_a_prompt(model):
    context = context_of(model)
    images, times = torch.randn(3, 1, 12, 12), torch.tensor([1, 4, 9])
    states = context.encode(["2", "", "0"])
    assert states.shape == (3, 1, 1)
    found = predict(ByLabelStates(model.unet), images, times, states)
    assert torch.equal(found, model.unet(images, times, torch.tensor([2, 4, 0])))
    assert context.shape == (1, 12, 12)
    torch.testing.assert_close(context.abar, alphas_cumprod(model.schedule))


def test_relabelling_is_erase_class(model, forgotten):
    other = copy.deepcopy(model.unet)
    result = class_relabel(model.unet, forgotten, RELABEL, context_of(model))
    erase_class(
        other,
        forgotten.forget,
        forgotten.retain,
        context_of(model).abar,
        RELABEL,
        generator=lambda name: stream(3, name),
    )
    assert result.fit.steps == 2
    assert distance(model.unet.state_dict(), other.state_dict()) == 0


def test_without_a_rate_to_speak_of_nothing_moves(model, forgotten):
    before = weights(model)
    class_relabel(model.unet, forgotten, RELABEL.model_copy(update={"lr": 1e-30}), context_of(model))
    class_esd(model.unet, forgotten, ESD.model_copy(update={"lr": 1e-30}), context_of(model))
    assert distance(before, weights(model)) < 1e-12


def test_esd_draws_the_class_towards_no_class(model, forgotten):
    """eta 0: the target is the empty condition's prediction."""
    images, times = torch.randn(8, 1, 12, 12), torch.full((8,), 5)

    def gap(unet):
        label, null = (unet(images, times, torch.full((8,), each)) for each in (1, 4))
        return float((label - null).detach().abs().mean())

    model.unet.classes.weight.data[1] += 3
    before = gap(model.unet)
    frozen_null = model.unet(images, times, torch.full((8,), 4)).detach()
    options = ESD.model_copy(update={"eta": 0.0, "iterations": 30, "batch": 8, "lr": 3e-3})
    result = class_esd(model.unet, forgotten, options, context_of(model))
    assert result.fit.steps == 30
    assert gap(model.unet) < 0.5 * before
    assert frozen_null.isfinite().all()


def test_the_same_seed_gives_the_same_weights(model, forgotten, tmp_path):
    other = copy.deepcopy(model)
    for each, place in ((model, None), (other, tmp_path)):
        class_relabel(each.unet, forgotten, RELABEL, context_of(each, place))
        class_esd(each.unet, forgotten, ESD, context_of(each, place))
    assert distance(weights(model), weights(other)) == 0
    kept = {path.name for path in tmp_path.glob("*.pt")}
    assert kept == {"erase-class.checkpoint.pt", "erase.checkpoint.pt"}


def test_more_drawing_steps_than_noise_levels_are_refused(model, forgotten):
    with pytest.raises(ConfigError, match="50 steps, but the model has 10 noise levels"):
        class_esd(model.unet, forgotten, ClassEsdOptions(iterations=1), context_of(model))


@pytest.mark.parametrize(("name", "cls"), [("class_relabel", ClassErasingOptions), ("class_esd", ClassEsdOptions)])
def test_options_are_readable_without_torch(name, cls):
    found = options_class(f"shared.diffusion.classes.erasers:{name}")
    assert found is cls
    assert found().in_weights
