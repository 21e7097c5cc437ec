"""PO, IdkDPO, NPO and SimNPO: identities and limits."""

import math

import torch

from shared.gpu.micro_batch import take
from shared.text.losses.tokens import num_labels, sequence_nll

ALONE = {"retain_term": "none"}


def test_npo_at_the_start_has_the_gradient_of_summed_ascent(close, loss, model, start, batch, gradient):
    for beta in (0.05, 0.1, 3.0):
        value = loss("npo", model, batch, start, beta=beta, **ALONE)
        close(value, 2 / beta * math.log(2))
        ascent = -sequence_nll(model, batch.forget).mean()
        close(gradient(value, model), gradient(ascent, model))


def test_npo_tends_to_ascent_for_small_beta(loss, model, reference, batch, gradient):
    ascent = gradient(-sequence_nll(model, batch.forget).mean(), model)
    distances = []
    for beta in (1e-1, 1e-2, 1e-3):
        near = gradient(loss("npo", model, batch, reference, beta=beta, **ALONE), model)
        distances.append(float((near - ascent).norm() / ascent.norm()))
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert distances[2] < 0.01


def test_npo_weight_is_two_sigmoid(close, loss, model, reference, batch, gradient):
    one = take(batch, 1, 2)
    ratio = sequence_nll(reference, one.forget) - sequence_nll(model, one.forget)
    value = loss("npo", model, one, reference, beta=0.2, **ALONE)
    close(gradient(value, model), (2 * torch.sigmoid(0.2 * ratio.detach())) * gradient(ratio.sum(), model))


def test_npo_with_retain_terms_is_a_sum(close, loss, model, reference, batch):
    alone = loss("npo", model, batch, reference, **ALONE)
    retain = loss("gd", model, batch, None, gamma=0.0)
    divergence = loss("kl", model, batch, reference, gamma=0.0)
    close(loss("npo", model, batch, reference, gamma=0.5, alpha=2.0), 0.5 * alone + 2 * retain)
    close(loss("npo", model, batch, reference, retain_term="kl", alpha=2.0), alone + 2 * divergence)


def test_simnpo_weight(close, loss, model, batch, gradient):
    """At delta = 0 a row's gradient is that of -nll with weight 2 sigmoid(-beta nll/|y|) / |y|."""
    one, beta = take(batch, 2, 3), 1.3
    nll, count = sequence_nll(model, one.forget).sum(), num_labels(one.forget).item()
    assert count == 9
    value = loss("simnpo", model, one, None, beta=beta, gamma=1.0, **ALONE)
    weight = 2 * torch.sigmoid(-beta * nll.detach() / count) / count
    close(gradient(value, model), -weight * gradient(nll, model))


def test_simnpo_of_rows_of_one_length_is_npo_of_a_flat_reference(close, loss, model, make_rows, batch):
    """A reference of summed log-likelihood -|y| delta for every row: the two then differ by beta * |y|."""
    rows = make_rows([(3, 4), (2, 4)], 8)
    nll = sequence_nll(model, rows)
    value = loss("simnpo", model, batch._replace(forget=rows), None, beta=2.0, delta=0.4, gamma=1.0, **ALONE)
    scaled = 2.0 / 4
    flat = -2 / scaled * torch.nn.functional.logsigmoid(-scaled * (-nll + 4 * 0.4)).mean() / 4
    close(value, flat)


def test_dpo_of_equal_answers_has_no_gradient(close, loss, model, reference, batch, gradient):
    equal = batch._replace(refusal=batch.forget)
    for beta in (0.1, 2.0):
        value = loss("idk_dpo", model, equal, reference, beta=beta, **ALONE)
        close(value, 2 / beta * math.log(2))
        assert gradient(value, model).abs().max() < 1e-12


def test_dpo_prefers_refusals(close, loss, model, start, batch, gradient):
    """At the start: the gradient of mean nll(refusal) - mean nll(forget)."""
    value = loss("idk_dpo", model, batch, start, **ALONE)
    pull = (sequence_nll(model, batch.refusal) - sequence_nll(model, batch.forget)).mean()
    close(gradient(value, model), gradient(pull, model))


def test_po_means_agree_for_as_many_tokens_on_both_sides(close, loss, model, batch):
    """Then one mean over both is half the sum of two."""
    equal = batch._replace(refusal=batch.forget, retain=batch.forget)
    close(loss("po", model, equal, None, mean="concatenated"), loss("po", model, equal, None) / 2)


def test_po_concatenated_is_the_mean_of_one_batch(close, loss, model, batch):
    """Rows of both side by side, padded to one width, as one batch of the library's own loss."""
    width = max(rows.input_ids.shape[1] for rows in (batch.refusal, batch.retain))

    def pad(tensor, fill):
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=fill)

    joined = {
        key: torch.cat([pad(getattr(rows, key), fill) for rows in (batch.refusal, batch.retain)])
        for key, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100))
    }
    close(loss("po", model, batch, None, mean="concatenated"), model(**joined).loss, rtol=1e-6)
