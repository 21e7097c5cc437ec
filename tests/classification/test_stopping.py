"""The stop rule of unlearning: forgotten enough, so no epoch more."""

import copy

import pytest
import torch
from pydantic import ValidationError

from shared.classification.ascent import AscentOptions, gradient_ascent
from shared.classification.relabel import StoppedRelabelOptions, random_label, random_label_stopped
from shared.classification.stopping import forgotten
from shared.metrics.accuracy import accuracy, predict
from shared.training.state import LoopState

SETTING = {"lr": 0.5, "epochs": 20, "batch": 16}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def one_class(images, label=0):
    return images.subset((images.labels == label).nonzero()[:, 0])


def state(model):
    return LoopState(model, torch.optim.SGD(model.parameters(), 0.1), 1, torch.Generator())


def test_the_rule_is_strict_and_leaves_the_mode_alone(model, forget):
    score = accuracy(predict(model, forget))
    model.train()
    assert not forgotten(forget, score)(state(model))
    assert forgotten(forget, score + 1e-6)(state(model))
    assert model.training
    assert forgotten(forget, None) is None


def test_ascent_stops_with_the_first_epoch_that_forgot(model, forget, retain, new_context):
    """The stopped run is the run of that many epochs, to the bit; one epoch less had not forgotten."""
    data, context = one_class(forget), new_context()
    stopped = gradient_ascent(copy.deepcopy(model), data, retain, AscentOptions(**SETTING, stop_below=1.0), context)
    epochs = context.meter.steps
    assert 1 < epochs < 20  # ten images are one batch
    runs = {}
    for num in (epochs - 1, epochs):
        options = AscentOptions(**{**SETTING, "epochs": num})
        runs[num] = gradient_ascent(copy.deepcopy(model), data, retain, options, new_context())
    assert torch.equal(weights(stopped), weights(runs[epochs]))
    assert accuracy(predict(runs[epochs], data)) < 1.0
    assert accuracy(predict(runs[epochs - 1], data)) >= 1.0


def test_random_labels_without_the_retain_term_stop_too(model, forget, retain, new_context):
    data, context = one_class(forget), new_context()
    values = {**SETTING, "lr": 0.02, "labels": "other", "retain_term": False}
    options = StoppedRelabelOptions(**values, stop_below=1.0)
    stopped = random_label_stopped(copy.deepcopy(model), data, retain, options, context)
    assert accuracy(predict(stopped, data)) < 1.0
    assert context.meter.steps < 12
    shorter = StoppedRelabelOptions(**{**values, "epochs": context.meter.steps}, stop_below=1.0)
    plain = random_label(copy.deepcopy(model), data, retain, shorter, new_context())
    assert torch.equal(weights(stopped), weights(plain))


@pytest.mark.parametrize("value", [0.0, -1.0, 101.0])
def test_a_threshold_that_stops_never_or_always_is_refused(value):
    with pytest.raises(ValidationError, match="stop_below"):
        AscentOptions(lr=0.1, stop_below=value)
