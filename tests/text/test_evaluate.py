"""Evaluation logs: every number against the pieces it is made of."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from shared.errors import DataError
from shared.metrics.text.membership import min_k_plus_plus_score, min_k_score
from shared.text.aggregate import aggregate
from shared.text.data import QaRow
from shared.text.encode import Encoder
from shared.text.evaluate import Evaluation
from shared.text.generate import Limit, generate_ids, prompts_of, text_of
from shared.text.gradient_norm import gradient_norms
from shared.text.score import score
from shared.text.task import EvaluationSpec
from shared.text.templates import TEMPLATES
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer

NAMES, PLACES = ["ann", "bob", "carl", "dora", "eve", "finn"], ["oslo", "lima", "cairo", "quito", "hanoi"]
SPLITS = {name: name for name in ("retain", "forget", "real_authors", "world_facts")}


def evaluate(model, encoder, sets, spec, source="model"):
    return Evaluation(encoder, sets, spec)(model, source)


def author(index, name, num_perturbed=3, paraphrase=True):
    place, *others = PLACES[index % 5 :] + PLACES[: index % 5]
    said = "the home of {} is {}"
    return QaRow(
        index,
        f"Where was {name} born?",
        f"{name} was born in {place}",
        paraphrased_answer=said.format(name, place) if paraphrase else None,
        perturbed_answers=tuple(said.format(name, other) for other in others[:num_perturbed]),
    )


@pytest.fixture
def sets():
    facts = [author(index, name, 2, paraphrase=False) for index, name in enumerate(NAMES)]
    return {
        "retain": [author(index, name) for index, name in enumerate(NAMES[:4])],
        "forget": [author(index + 10, name) for index, name in enumerate(NAMES[4:])],
        "real_authors": facts[:3],
        "world_facts": facts[3:],
    }


@pytest.fixture
def encoder():
    tokenizer = word_tokenizer([*NAMES, *PLACES, "where was born in the home of is ?"], 24)
    return Encoder(tokenizer, TEMPLATES["plain"], "legacy", 24)


@pytest.fixture
def model(encoder):
    return tiny_gpt(TinyGptOptions(width=32, context=24, init_std=0.3), encoder.tokenizer, 0).eval()


def spec(**changes):
    return EvaluationSpec(sets={**SPLITS, **changes.pop("sets", {})}, max_length=24, max_total=16, **changes)


def loss(model, encoder, row, answer):
    """Mean loss by the model's own training loss, one row at a time."""
    encoded = encoder.row(row.index, row.question, answer)
    ids, mask, labels = (torch.tensor([v]) for v in (encoded.input_ids, encoded.attention_mask, encoded.labels))
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=mask, labels=labels).loss)


def test_losses_of_all_answers(model, encoder, sets):
    log = evaluate(model, encoder, sets, spec(), "here")
    assert (list(log.sets), log.source) == (list(sets), "here")
    for name, rows in sets.items():
        found = log.of(name)
        assert found.index == [row.index for row in rows]
        assert found.truth == [row.answer for row in rows]
        for place, row in enumerate(rows):
            assert found.avg_loss[place] == pytest.approx(loss(model, encoder, row, row.answer), abs=1e-5)
            assert found.num_tokens[place] == encoder.row(0, row.question, row.answer).num_targets
            perturbed = [loss(model, encoder, row, answer) for answer in row.perturbed_answers]
            np.testing.assert_allclose(found.perturbed_loss[place], perturbed, atol=1e-5)
            if row.paraphrased_answer is not None:
                paraphrase = loss(model, encoder, row, row.paraphrased_answer)
                assert found.paraphrase_loss[place] == pytest.approx(paraphrase, abs=1e-5)
    assert log.of("world_facts").paraphrase_loss is None
    assert log.of("forget").perturbed_num_tokens.shape == (2, 3)


def test_generated_answers_and_their_rouge(model, encoder, sets):
    found = evaluate(model, encoder, sets, spec()).of("retain")
    prompts = prompts_of(encoder, [(row.index, row.question) for row in sets["retain"]])
    ids = generate_ids(model, encoder, prompts, Limit(max_total=16))
    assert found.generated == [text_of(encoder, answer) for answer in ids]
    assert ((found.rougeL_recall >= 0) & (found.rougeL_recall <= found.rouge1_recall)).all()


def test_the_whole_log_becomes_the_tables_numbers(model, encoder, sets):
    log = evaluate(model, encoder, sets, spec())
    values = aggregate(log, log)
    assert values["forget_quality"] == 1
    assert 0 <= values["model_utility"] < 1
    assert values["probability_forget"] == pytest.approx(np.exp(-log.of("forget").avg_loss).mean())


def test_token_statistics_only_where_they_are_asked_for(model, encoder, sets):
    holdout = [
        replace(author(index, name), perturbed_answers=(), paraphrased_answer=None) for index, name in enumerate(NAMES)
    ]
    chosen = spec(memorization=True, membership=True, sets={"holdout": "holdout"})
    log = evaluate(model, encoder, {**sets, "holdout": holdout}, chosen)
    assert log.of("retain").min_k is log.of("retain").extraction_strength is None
    assert (
        log.of("holdout").generated is log.of("holdout").perturbed_loss is log.of("holdout").extraction_strength is None
    )
    forget, rows = log.of("forget"), [encoder.row(r.index, r.question, r.answer) for r in sets["forget"]]
    for place, found in enumerate(score(model, rows, moments=True)):
        assert forget.exact_memorization[place] == found.hits[:-1].mean()
        assert forget.min_k[place] == pytest.approx(min_k_score(found.log_probs), abs=1e-5)
        plus_plus = min_k_plus_plus_score(found.log_probs, found.mean, found.variance)
        assert forget.min_k_plus_plus[place] == pytest.approx(plus_plus, abs=1e-3)
    values = aggregate(log)
    assert {"mia_loss", "mia_min_k_plus_plus", "mia_gradnorm", "extraction_strength", "privleak"} <= set(values)


def test_gradient_norms_are_those_of_backward_and_leave_no_trace(model, encoder, sets):
    model.transformer.wpe.weight.requires_grad_(False)  # frozen: counts all the same
    rows = [encoder.row(row.index, row.question, row.answer) for row in sets["retain"]]
    found = gradient_norms(model, rows)
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.transformer.wpe.weight.requires_grad
    model.requires_grad_(True)
    for row, norm in zip(rows, found, strict=True):
        ids, mask, labels = (torch.tensor([v]) for v in (row.input_ids, row.attention_mask, row.labels))
        model.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        norms = [float(weight.grad.norm()) for weight in model.parameters()]
        assert norm == pytest.approx(np.mean(norms), rel=1e-4)


def test_a_missing_set_is_absent(model, encoder, sets):
    log = evaluate(model, encoder, {"forget": sets["forget"]}, spec())
    assert list(log.sets) == ["forget"]


def test_one_evaluation_serves_many_models(model, encoder, sets):
    judge = Evaluation(encoder, sets, spec())
    first = judge(model)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(2)
    second = judge(model)
    np.testing.assert_array_equal(
        second.of("forget").avg_loss, evaluate(model, encoder, sets, spec()).of("forget").avg_loss
    )
    assert (first.of("forget").avg_loss != second.of("forget").avg_loss).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_model_has_utility_zero_and_does_not_crash(model, encoder, sets, value):
    healthy = evaluate(model, encoder, sets, spec())
    with torch.no_grad():
        model.transformer.ln_f.bias.fill_(value)
    log = evaluate(model, encoder, sets, spec(epsilon=1e-10))
    assert not np.isfinite(log.of("forget").avg_loss).any()
    assert log.epsilon == 1e-10
    values = aggregate(log, healthy)
    assert values["model_utility"] == 0
    assert values["probability_forget"] == 0
    assert math.isfinite(values["log10_forget_quality"])


def test_rows_that_do_not_match_are_one_line(encoder, sets):
    rows = sets["retain"]
    for change, message in [
        ({"perturbed_answers": ("x",)}, "retain: row 1 has 1 perturbed answers, row 0 has 3"),
        ({"paraphrased_answer": None}, "retain: row 0 has a paraphrase, row 1 has none"),
    ]:
        with pytest.raises(DataError, match=message):
            Evaluation(encoder, {"retain": [rows[0], replace(rows[1], **change)]}, spec())
    with pytest.raises(DataError, match="question set 'forget' has no rows"):
        Evaluation(encoder, {"forget": []}, spec())
