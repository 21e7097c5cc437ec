"""GA, GD and KL: identities and limits."""

import pytest
import torch


def test_ga_is_minus_the_loss_of_the_library(close, loss, model, batch):
    rows = batch.forget
    library = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, labels=rows.labels).loss
    close(loss("ga", model, batch, None), -library, rtol=1e-6)  # the library computes it in float32


def test_gd_is_ga_plus_the_retain_loss(close, loss, model, batch):
    swapped = batch._replace(forget=batch.retain)
    retain = -loss("ga", model, swapped, None)
    close(loss("gd", model, batch, None), loss("ga", model, batch, None) + retain)
    close(loss("gd", model, batch, None, gamma=0.3, alpha=0.0), 0.3 * loss("ga", model, batch, None))


def test_gd_of_equal_rows_cancels(close, loss, model, batch, gradient):
    value = loss("gd", model, batch._replace(retain=batch.forget), None)
    close(value, 0.0)
    assert gradient(value, model).abs().max() < 1e-12


@pytest.mark.parametrize("positions", ["answer", "attended", "all"])
def test_kl_vanishes_at_the_start_with_its_gradient(close, positions, loss, model, start, batch, gradient):
    value = loss("kl", model, batch, start, gamma=0.0, kl_positions=positions)
    close(value, 0.0)
    assert gradient(value, model).abs().max() < 1e-10
    close(loss("kl", model, batch, start, kl_positions=positions), loss("ga", model, batch, None))


@pytest.mark.parametrize("positions", ["answer", "attended", "all"])
def test_kl_is_positive_elsewhere(positions, loss, model, reference, batch):
    assert loss("kl", model, batch, reference, gamma=0.0, kl_positions=positions) > 1e-3


def test_kl_is_the_divergence_of_torch_distributions(close, loss, model, reference, batch):
    inputs = {"input_ids": batch.retain.input_ids, "attention_mask": batch.retain.attention_mask}
    p0, p = (torch.distributions.Categorical(logits=m(**inputs).logits) for m in (reference, model))
    values = torch.distributions.kl_divergence(p0, p)
    close(loss("kl", model, batch, reference, gamma=0.0, kl_positions="all"), values.mean())
    mask = batch.retain.attention_mask.bool()
    close(loss("kl", model, batch, reference, gamma=0.0), values[mask].mean())
