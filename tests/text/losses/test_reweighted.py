"""WGA and SatImp: identities and limits."""

import torch

from shared.gpu.micro_batch import take

ALONE = {"retain_term": "none"}


def test_wga_and_satimp_without_powers_are_ga(close, loss, model, batch, gradient):
    ascent = loss("ga", model, batch, None)
    weighted = loss("wga", model, batch, None, beta=0.0, **ALONE)
    both = loss("satimp", model, batch, None, beta1=0.0, beta2=0.0, gamma=1.0, **ALONE)
    for value in (weighted, both):
        close(value, ascent)
        close(gradient(value, model), gradient(ascent, model))


def test_satimp_without_importance_is_wga(close, loss, model, batch):
    saturated = loss("satimp", model, batch, None, beta1=1.7, beta2=0.0, gamma=1.0)
    close(saturated, loss("wga", model, batch, None, beta=1.7))


def test_weights_of_tokens_are_constants(close, loss, model, batch, gradient):
    """d/dz of p log p would have a factor (1 + log p) that WGA must not have: one token, by hand."""
    one = take(batch, 0, 1)
    labels = one.forget.labels.clone()
    labels[:, 4:] = -100
    one = one._replace(forget=one.forget._replace(labels=labels))
    nll = -loss("ga", model, one, None)
    value = loss("wga", model, one, None, beta=1.0, **ALONE)
    close(gradient(value, model), -torch.exp(-nll.detach()) * gradient(nll, model))
