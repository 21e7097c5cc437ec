"""Amnesiac unlearning: what is left is what batches without D_f did."""

import pytest
import torch

from shared.classification.amnesiac import AmnesiacOptions, amnesiac
from shared.classification.finetune import cross_entropy
from shared.classification.options import SgdOptions
from shared.errors import UserError

SETTING = {"lr": 0.05, "epochs": 2, "batch": 6, "repair_lr": 0.01, "repair_epochs": 0}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def written_out(forget, retain, context):
    """The recorded training as a plain loop: start, end, and the update of every batch with and without D_f."""
    model = context.fresh_model("recorded training").train()
    data, generator = forget.followed_by(retain), context.generator("recorded training")
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4)
    start, tainted, clean = weights(model), [], []
    for _ in range(2):
        for batch in data.batches(6, generator):
            before = weights(model)
            optimizer.zero_grad()
            cross_entropy(model, batch).backward()
            optimizer.step()
            held = (batch.indices < len(forget)).any()
            (tainted if held else clean).append(weights(model) - before)
    return start, weights(model), tainted, clean


def test_what_is_left_is_the_start_and_the_updates_of_clean_batches(model, forget, retain, new_context):
    few = forget.subset([0, 1])
    context = new_context()
    found = weights(amnesiac(model, few, retain, AmnesiacOptions(**SETTING), context))
    start, end, tainted, clean = written_out(few, retain, new_context())
    assert tainted
    assert clean
    torch.testing.assert_close(found, start + sum(clean), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, end - sum(tainted), atol=1e-5, rtol=1e-4)
    assert context.extras["updates_taken_back"] == pytest.approx(len(tainted) / (len(tainted) + len(clean)))


def test_when_every_batch_held_some_of_it_the_start_is_left(model, forget, retain, new_context):
    """As when a whole class is forgotten: the untrained weights, to rounding."""
    options = AmnesiacOptions(**{**SETTING, "batch": 90})
    context = new_context()
    found = weights(amnesiac(model, forget, retain, options, context))
    torch.testing.assert_close(found, weights(new_context().fresh_model("recorded training")), atol=1e-6, rtol=1e-4)
    assert context.extras["updates_taken_back"] == 1.0


def test_recording_is_not_counted_as_unlearning(model, forget, retain, new_context):
    context = new_context()
    amnesiac(model, forget, retain, AmnesiacOptions(**{**SETTING, "repair_epochs": 3}), context)
    assert context.meter.steps == 3 * 10  # 60 retained images in batches of 6
    assert context.meter.recovered_seconds < 0  # taken off the row's wall time


def test_repair_is_finetuning_of_what_is_left(model, forget, retain, new_context):
    subtracted = amnesiac(model, forget, retain, AmnesiacOptions(**SETTING), new_context())
    new_context().fit(
        subtracted, lambda _, g: retain.batches(6, g), cross_entropy, SgdOptions(lr=0.01, epochs=2, batch=6),
        stream="repair",
    )  # fmt: skip
    repaired = amnesiac(model, forget, retain, AmnesiacOptions(**{**SETTING, "repair_epochs": 2}), new_context())
    assert torch.equal(weights(repaired), weights(subtracted))


def test_a_mask_is_refused(model, forget, retain, new_context):
    context = new_context().with_mask({"fc.weight": torch.ones_like(model.fc.weight, dtype=torch.bool)})
    with pytest.raises(UserError, match="under a weight mask"):
        amnesiac(model, forget, retain, AmnesiacOptions(**SETTING), context)
