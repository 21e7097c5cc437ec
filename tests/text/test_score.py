"""Scores of batches and trees, against one plain forward pass for each row."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from shared.errors import DataError, UserError
from shared.text import score as scoring
from shared.text.encode import IGNORED, EncodedRow, Encoder
from shared.text.score import TREE_MODELS, score
from shared.text.templates import TEMPLATES
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer

from .conftest import END, WINDOW, make_model, make_row, make_rows


class Plain(NamedTuple):
    log_probs: np.ndarray
    hits: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def plain(model, row):
    """The whole row by itself, with its own mask, in float64 after the logits."""
    device = next(model.parameters()).device
    ids, mask = (torch.tensor([values], device=device) for values in (row.input_ids, row.attention_mask))
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0].double().cpu()
    log_p = logits.log_softmax(-1)
    at = [t for t in range(1, len(row.labels)) if row.labels[t] != IGNORED]
    log_p = log_p[[t - 1 for t in at]]
    labels = torch.tensor([row.labels[t] for t in at])
    mean = (log_p.exp() * log_p).sum(-1)
    variance = (log_p.exp() * log_p.square()).sum(-1) - mean.square()
    own = log_p.gather(1, labels[:, None])[:, 0]
    return Plain(own.numpy(), (log_p.argmax(-1) == labels).numpy(), mean.numpy(), variance.numpy())


def assert_plain(model, rows, tolerance=2e-5, **options):
    for row, found in zip(rows, score(model, rows, moments=True, **options), strict=True):
        expected = plain(model, row)
        np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=0, atol=20 * tolerance)
        assert (found.hits == expected.hits).all()
        assert found.num_labels == row.num_targets
        assert found.avg_loss == pytest.approx(-expected.log_probs.mean(), abs=tolerance)


@pytest.mark.parametrize(
    ("architecture", "kernel"),
    [*((name, "sdpa") for name in sorted(TREE_MODELS)), ("gpt2", "eager"), ("llama", "eager")],
)
def test_every_sharing_architecture_gives_the_scores_of_plain_passes(architecture, kernel):
    model, rows = make_model(architecture, kernel), make_rows(num_questions=3)
    shared = [unit for unit in scoring._units(model, items(rows), True) if not unit.whole]
    assert len(shared) == 3
    assert_plain(model, rows, max_tokens=100)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_without_sharing(architecture, rows):
    assert_plain(make_model(architecture), rows, share_prompts=False, max_tokens=100)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("share", [True, False])
def test_masked_tokens_inside_prompt_and_answer(architecture, share):
    rows = [row for masked in (5, 12, 30) for row in make_rows(masked)]
    assert any(0 in row.attention_mask[: row.num_masked] for row in rows)
    assert any(0 in row.attention_mask[row.num_masked : -1] for row in rows)
    # Rows of the three calls have one index and differ in nothing but the mask.
    assert_plain(make_model(architecture), rows, share_prompts=share)


def test_a_masked_first_token_runs_whole():
    rows = [make_row(0, [9, 4, 6], answer, masked=9) for answer in ([3, 3], [3, 8])]
    model = make_model()
    assert all(unit.whole for unit in scoring._units(model, items(rows), True))
    assert_plain(model, rows)


def test_a_sliding_window_shorter_than_the_rows_runs_whole():
    model = make_model("mistral", sliding_window=6)
    rows = make_rows()
    assert any(unit.whole for unit in scoring._units(model, items(rows), True))
    assert_plain(model, rows)


def test_an_unknown_architecture_runs_whole_with_all_that_its_output_layer_does():
    model = make_model("gemma2", "eager", final_logit_softcapping=2.0)
    rows = make_rows()
    assert all(unit.whole for unit in scoring._units(model, items(rows), True))
    assert_plain(model, rows, tolerance=5e-5)


@pytest.mark.parametrize("profile", ["legacy", "open_unlearning"])
@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_both_profiles(profile, pad_is_eos):
    texts = ["who wrote it ? ann did . bob carl dora wrote the book in may june"]
    tokenizer = word_tokenizer(texts, 32)
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    model = tiny_gpt(TinyGptOptions(width=32, context=32, init_std=0.3), tokenizer, 0).eval()
    encoder = Encoder(tokenizer, TEMPLATES["phi"], profile, 32)
    rows = encoder.rows(
        (index, question, f"{name} wrote the book in {month}.")
        for index, question in enumerate(["Who wrote it?", "Who?"])
        for name in ("Ann", "Bob", "Carl")
        for month in ("May", "June")
    )
    masked_end = profile == "legacy" or pad_is_eos
    assert all((row.attention_mask[-1] == 0) == masked_end for row in rows)
    assert_plain(model, rows)


def test_company_order_and_batch_size_do_not_matter(rows):
    model = make_model("llama")
    reference = score(model, rows)
    order = np.random.RandomState(0).permutation(len(rows))
    shuffled = score(model, [rows[i] for i in order], max_tokens=40)
    for place, number in enumerate(order):
        np.testing.assert_allclose(shuffled[place].log_probs, reference[number].log_probs, atol=2e-5)
    alone = score(model, rows[4:5])[0]
    np.testing.assert_allclose(alone.log_probs, reference[4].log_probs, atol=2e-5)


def test_equal_rows_and_equal_numbers_of_different_questions():
    rows = [make_row(0, [5, 6], [8, 9]), make_row(0, [5, 6], [8, 9]), make_row(0, [20, 21, 22], [8])]
    assert_plain(make_model(), rows)


def test_a_row_without_target_has_no_loss():
    empty = EncodedRow(0, [3, 4], [1, 1], [IGNORED, IGNORED], 2, False)
    first, found, last = score(make_model(), [make_row(0, [3, 4], [8]), empty, make_row(0, [3, 4], [])])
    assert math.isnan(found.nll)
    assert math.isnan(found.avg_loss)
    assert (found.num_labels, first.num_labels, last.num_labels) == (0, 2, 1)
    assert math.isnan(score(make_model(), [empty])[0].nll)


def test_a_label_at_the_first_position_is_predicted_from_nothing_and_does_not_count():
    row = EncodedRow(0, [3, 4, END], [1, 1, 0], [3, 4, END], 0, False)
    assert score(make_model(), [row])[0].num_labels == 2
    assert_plain(make_model(), [row])


def test_a_row_longer_than_the_window_is_one_line():
    fits, longer = make_row(3, [5] * 8, [9] * (WINDOW - 8)), make_row(4, [5] * 8, [9] * (WINDOW - 7))
    assert score(make_model(), [fits])[0].num_labels == WINDOW - 7  # the last label needs no position
    with pytest.raises(DataError, match=f"row 4: {WINDOW + 2} tokens do not fit the model's window of {WINDOW}"):
        score(make_model(), [fits, longer])


def test_nothing_to_score():
    assert score(make_model(), []) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_model_has_undefined_losses_everywhere_and_no_hits(value, rows):
    model = make_model()
    with torch.no_grad():
        model.transformer.ln_f.bias.fill_(value)
    found = score(model, rows, moments=True)
    assert not any(np.isfinite(s.avg_loss) for s in found)
    assert not any(s.hits.any() for s in found)


def test_huge_logits_give_finite_losses(rows):
    model = make_model()
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(1e4)
    found = score(model, rows, moments=True)
    assert max(s.avg_loss for s in found) > 700  # exp(-loss) underflows, the loss does not
    assert all(np.isfinite(s.log_probs).all() and np.isfinite(s.variance).all() for s in found)


def test_bfloat16_models_agree_to_their_precision(rows):
    exact, half = make_model("llama"), make_model("llama", dtype=torch.bfloat16)
    for a, b in zip(score(exact, rows), score(half, rows), strict=True):
        assert b.avg_loss == pytest.approx(a.avg_loss, abs=0.3)


def test_mode_and_gradients_are_left_as_they_were(rows):
    model = make_model(resid_pdrop=0.5)
    model.train()
    first, second = score(model, rows), score(model, rows)
    assert model.training
    assert all((a.log_probs == b.log_probs).all() for a, b in zip(first, second, strict=True))
    assert not model.lm_head._forward_pre_hooks
    assert all(weight.grad is None for weight in model.parameters())


def test_out_of_memory_halves_the_batch(rows, monkeypatch, capsys):
    model, seen = make_model(), []
    reference = score(model, rows)

    def small_device(model, units, moments):
        seen.append(len(units))
        if len(units) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return whole(model, units, moments)

    whole = scoring._score
    monkeypatch.setattr(scoring, "_score", small_device)
    found = score(model, rows, max_tokens=10_000)
    assert all((a.log_probs - b.log_probs).max() < 2e-5 for a, b in zip(found, reference, strict=True))
    assert seen[:2] == [6, 3]
    assert "micro-batches" in capsys.readouterr().err
    monkeypatch.setattr(scoring, "_score", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(UserError, match="out of memory with a single sample"):
        score(model, rows)


def test_batches_keep_to_the_budget(rows):
    units = scoring._units(make_model(), items(rows), True)
    for batch in scoring._batches(units, 60):
        assert len(batch) == 1 or max(unit.width for unit in batch) * len(batch) <= 60
    assert sum(len(batch) for batch in scoring._batches(units, 60)) == len(units)


def test_no_logits_of_positions_without_label_exist(rows):
    model, counts = make_model(), []
    model.lm_head.register_forward_hook(lambda _layer, inputs, _output: counts.append(inputs[0].shape[:-1].numel()))
    score(model, rows, share_prompts=False)
    assert sum(counts) == sum(row.num_targets for row in rows)
    alone = sum(counts)
    counts.clear()
    score(model, rows)
    assert sum(counts) < alone  # common beginnings of answers are predicted once


def items(rows):
    return [(number, scoring._Item.of(row)) for number, row in enumerate(rows)]
