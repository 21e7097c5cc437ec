"""Stages of class-conditional models, as the jobs make them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from shared.diffusion.classes.models import (
    DIFF,
    SOURCE,
    load_class_classifier,
    load_class_erased,
    load_class_model,
    load_recipe,
)
from shared.diffusion.classes.stages import make
from shared.errors import DataError

CPU = torch.device("cpu")
CONCEPT = {"kind": "class", "label": 1}


def made(recipe, tmp_path, name, parents=None):
    out, workdir = tmp_path / name, tmp_path / f"{name}-work"
    for folder in (out, workdir):
        folder.mkdir(exist_ok=True)
    return out, make(recipe, parents or {}, out, workdir, CPU)


def test_a_model_and_one_without_the_class(recipe_of, tmp_path):
    whole, fits = made(recipe_of("model"), tmp_path, "whole")
    without, _ = made(recipe_of("retrained", concept=CONCEPT), tmp_path, "without")
    assert [fit.steps for fit in fits] == [2]
    models = [load_class_model(folder, CPU) for folder in (whole, without)]
    assert all(model.average is not None for model in models)
    assert models[0].schedule.num_train_timesteps == 10
    # nothing was learned about the class: its row of the table is as drawn, but for the decay of AdamW
    first, second = (model.unet.classes.weight for model in models)
    assert (first[0] - second[0]).abs().max() > 0
    assert load_recipe(whole) == load_recipe(without)


@pytest.mark.parametrize("eraser", ["class_relabel", "class_esd"])
def test_an_erased_model_is_its_base_and_a_difference(eraser, recipe_of, tmp_path):
    base, _ = made(recipe_of("model"), tmp_path, "base")
    options = {"class_relabel": {"mask_batch": 10, "keep": 0.5}, "class_esd": {"draw_steps": 10}}[eraser]
    recipe = recipe_of(
        "erased",
        eraser=f"shared.diffusion.classes.erasers:{eraser}",
        options={"iterations": 2, "batch": 4, "lr": 1e-3, **options},
        concept=CONCEPT,
    )
    out, fits = made(recipe, tmp_path, eraser, {"model": base})
    assert [fit.steps for fit in fits] == [2]
    erased, before = load_class_erased(out, base, CPU), load_class_model(base, CPU)
    assert erased.average is None
    changed = load_file(out / DIFF)
    assert changed
    assert all(name.startswith("unet.") for name in changed)
    for name, value in before.unet.state_dict().items():
        assert torch.equal(erased.unet.state_dict()[name], changed.get(f"unet.{name}", value))


def test_the_judge(recipe_of, judge, tmp_path):
    out, fits = made(recipe_of("classifier", recipe=judge.model_dump(mode="json")), tmp_path, "judge")
    model = load_class_classifier(out, CPU)
    assert fits[0].steps == 1
    assert model.config.heads == {"class": ["square", "disc", "cross", "triangle"]}
    assert json.loads((out / SOURCE).read_text()) == {"classifier": "small"}


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(DataError, match="delete its folder and run the stage again"):
        load_class_model(tmp_path, CPU)
