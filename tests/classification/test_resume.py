"""A run that is cut off at any step and started again ends in the same weights, to the bit."""

import copy
import functools

import pytest
import torch

import shared.classification.context as context_module
from shared.classification.protocol import METHODS
from shared.options import parse_options
from shared.run import import_path
from shared.training.checkpoint import Checkpoint
from shared.training.resume import Resume

SGD = {"lr": 0.02, "epochs": 3, "batch": 16}
CASES = {
    "finetune": SGD,
    "random_label": {**SGD, "interleave": "mixed"},
    # these stop before the third epoch; the kill is in the first
    "gradient_ascent": {**SGD, "batch": 4, "lr": 1.0, "stop_below": 99.0},
    "shared.classification.relabel:random_label_stopped": {
        **SGD,
        "batch": 4,
        "lr": 0.2,
        "stop_below": 99.0,
        "labels": "other",
    },
    "neggrad_plus": {**SGD, "retain_weight": 0.9},
    "scrub": {"epochs": 3, "batch": 16, "max_epochs": 2, "decay_epochs": [1]},
    "eu_k": {**SGD, "num_layers": 2},
    "unsir": {"batch": 8, "noise_copies": 3, "noise_steps": 2, "samples_per_class": 30},
    "papers.salun.method:salun": {**SGD, "keep": 0.3},
    "papers.salun.method:salun_soft": {**SGD, "mask_ratio": 0.5},
    "papers.boundary.method:shrink": SGD,
    "papers.boundary.method:expand": SGD,
    "papers.boundary.method:shrink enhanced": {**SGD, "curvature": 0.7, "reweight": True},
    "shared.classification.amnesiac:amnesiac": {**SGD, "repair_lr": 0.01},
    "papers.unlearn_sparse.method:l1_sparse": {**SGD, "gamma": 1e-3},
}


class KilledError(Exception):
    """The process is gone."""


@pytest.mark.parametrize("name", CASES)
def test_same_weights_after_a_kill(name, model, forget, retain, new_context, tmp_path, monkeypatch):
    path = METHODS.get(name, name.split()[0])
    options = parse_options(path, CASES[name])
    if name == "unsir":
        forget = forget.subset((forget.labels == 0).nonzero()[:, 0])
        retain = retain.subset((retain.labels != 0).nonzero()[:, 0])

    def run(folder):
        context = new_context(seed=5, workdir=folder, key="k")
        result = import_path(path)(copy.deepcopy(model), forget, retain, options, context)
        return result.state_dict(), context.meter.steps

    whole, steps = run(tmp_path / "whole")
    eager = functools.partial(Checkpoint, seconds=0.0)
    monkeypatch.setattr(context_module, "Checkpoint", eager)
    save, saved = Resume.save, []

    def save_then_die(self, state):
        save(self, state)
        saved.append(state.step)
        if len(saved) == 5:
            raise KilledError

    with monkeypatch.context() as dying:
        dying.setattr(Resume, "save", save_then_die)
        with pytest.raises(KilledError):
            run(tmp_path / "killed")
    resumed, counted = run(tmp_path / "killed")
    assert counted == steps
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
