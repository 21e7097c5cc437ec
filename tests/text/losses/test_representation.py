"""RMU: identities, limits, its direction, and what it trains."""

import pytest
import torch

from shared.errors import ConfigError
from shared.gpu.micro_batch import take


def test_rmu_switch_agrees_for_one_row_and_for_equal_lengths(close, loss, model, reference, batch, make_rows):
    one = take(batch, 2, 3)
    equal = batch._replace(forget=make_rows([(3, 4), (5, 4)], 1), retain=make_rows([(2, 6), (4, 6)], 2))
    for rows in (one, equal):
        close(loss("rmu", model, rows, reference, rmu_broadcast=True), loss("rmu", model, rows, reference))
    assert abs(loss("rmu", model, batch, reference, rmu_broadcast=True) - loss("rmu", model, batch, reference)) > 1e-6


def test_rmu_holds_the_retain_rows(close, loss, model, start, batch, gradient):
    value = loss("rmu", model, batch, start, gamma=0.0)
    close(value, 0.0)
    assert gradient(value, model).abs().max() == 0


def test_rmu_without_steering_shrinks_the_hidden_states(close, loss, model, batch):
    rows = batch.forget
    hidden = model(input_ids=rows.input_ids, output_hidden_states=True, attention_mask=rows.attention_mask)
    squares = hidden.hidden_states[1].square().mean(-1)
    means = [squares[i][rows.labels[i] != -100].mean() for i in range(4)]
    close(loss("rmu", model, batch, None, steering=0.0, alpha=0.0), sum(means) / 4)


def test_rmu_draws_its_direction_once(close, loss, model, reference, batch, make_context):
    context = make_context(seed=1)
    first = loss("rmu", model, batch, reference, context)
    u = context.state["rmu.direction"].clone()
    close(u.norm(), 1.0, rtol=1e-6)
    assert (u >= 0).all()
    context.generator = None  # a second draw would fail
    close(loss("rmu", model, batch, reference, context), first)
    resumed = make_context(seed=2)
    resumed.state.update(context.state)
    close(loss("rmu", model, batch, reference, resumed), first)
    assert not torch.equal(loss("rmu", model, batch, reference, make_context(seed=2)), first)


def test_rmu_trains_nothing_behind_its_module(loss, model, reference, batch):
    loss("rmu", model, batch, reference).backward()
    assert all(p.grad is None for p in model.transformer.h[1].parameters())
    assert all(p.grad is not None for p in model.transformer.h[0].parameters())


def test_rmu_says_when_nothing_before_its_module_is_trained(loss, model, reference, batch):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.transformer.h[1].mlp.c_proj.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"no weight up to module 'transformer\.h\.0' is trained"):
        loss("rmu", model, batch, reference)
    loss("rmu", model, batch, reference, module="transformer.h.1").backward()
