"""Erased models as stages keep them: the same model again, and nothing else."""

import pytest
import torch

from shared.diffusion import victim
from shared.diffusion.diffs import weights_of
from shared.diffusion.erasers.names import ERASERS
from shared.errors import DataError
from shared.files import write_json

CONCEPT = {"kind": "prompts", "name": "circle", "prompts": ["a circle"], "anchors": ["a square"], "retain": ["a bar"]}


@pytest.fixture
def model(pipe, tmp_path):
    """A stage folder with the untrained pipeline."""
    pipe.save(tmp_path / "model" / "pipeline")
    write_json(tmp_path / "model" / "source.json", {"pipeline": "pipeline"})
    return tmp_path / "model"


def recipe(eraser, **options):
    return {"eraser": ERASERS[eraser], "options": options, "concept": CONCEPT, "data": None, "seed": 3}


def make(model, out, eraser, **options):
    out.mkdir()
    return victim.make_erased(recipe(eraser, **options), model, out, None, "")


def test_a_kept_model_is_the_erased_one(model, tmp_path):
    make(model, tmp_path / "out", "esd", lr=1e-2, iterations=2, draw_steps=3)
    loaded = victim.load_erased(tmp_path / "out", model).pipe
    again = victim.load_model(model)
    concept = victim.CONCEPT.validate_python(CONCEPT)
    victim.erase(again, ERASERS["esd"], {"lr": 1e-2, "iterations": 2, "draw_steps": 3}, concept, None, 3)
    mine, theirs = weights_of(loaded), weights_of(again)
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    base = weights_of(victim.load_model(model))
    changed = {name for name, value in mine.items() if not torch.equal(value, base[name])}
    assert changed
    assert all(".attn2." in name for name in changed)


def test_the_closed_form_keeps_only_keys_and_values(model, tmp_path):
    assert make(model, tmp_path / "out", "uce") is None
    loaded = weights_of(victim.load_erased(tmp_path / "out", model).pipe)
    base = weights_of(victim.load_model(model))
    changed = [name for name, value in loaded.items() if not torch.equal(value, base[name])]
    assert changed
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in changed)


def test_a_diverged_eraser_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="not finite"):
        make(model, tmp_path / "out", "esd", lr=1e30, iterations=2, draw_steps=3)


def test_a_damaged_stage_says_what_to_do(model, tmp_path):
    (model / "source.json").write_text("{")
    with pytest.raises(DataError, match="delete its folder"):
        victim.load_model(model)
