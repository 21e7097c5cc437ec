"""UNDIAL and CE-U: identities and limits."""

import pytest
import torch

from shared.errors import ConfigError


def test_undial_without_penalty_is_self_distillation(close, loss, model, start, batch, gradient):
    """The cross-entropy is the teacher's entropy then, and the student is where it should be."""
    value = loss("undial", model, batch, start, beta=0.0)
    rows = batch.forget
    logits = start(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits[:, :-1]
    entropy = torch.distributions.Categorical(logits=logits).entropy()[rows.labels[:, 1:] != -100]
    close(value, entropy.mean())
    assert gradient(value, model).abs().max() < 1e-10


def test_undial_with_a_large_penalty_is_ceu_at_the_start(close, loss, model, start, batch, gradient):
    value = loss("undial", model, batch, start, beta=1e4)
    without = loss("ceu", model, batch, None, skip_first=False)
    close(value, without)
    close(gradient(value, model), gradient(without, model))


def test_ceu_skips_the_first_token_of_each_answer(close, loss, model, batch):
    labels = batch.forget.labels.clone()
    for row in labels:
        row[(row != -100).nonzero()[0]] = -100
    later = batch._replace(forget=batch.forget._replace(labels=labels))
    close(loss("ceu", model, batch, None), loss("ceu", model, later, None, skip_first=False))
    assert abs(loss("ceu", model, batch, None) - loss("ceu", model, batch, None, skip_first=False)) > 1e-4


def test_ceu_gradient_at_the_logits(close, loss, model, batch, gradient):
    """p - q = p_y at the true token and -p_v p_y / (1 - p_y) elsewhere: that of -log(1 - p_y), up to sign."""
    value = loss("ceu", model, batch, None, skip_first=False)
    rows = batch.forget
    log_p = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits[:, :-1].log_softmax(-1)
    mask = rows.labels[:, 1:] != -100
    p_true = log_p[mask].gather(1, rows.labels[:, 1:][mask][:, None]).exp()
    close(gradient(value, model), gradient(-torch.log1p(-p_true).mean(), model))


def test_released_undial_in_a_small_vocabulary_is_one_line(loss, model, reference, batch):
    with pytest.raises(ConfigError, match="token V-100, and the vocabulary has 50; use 'answer'"):
        loss("undial", model, batch, reference, positions="predicting")
