"""Per-question measurements of a causal language model, as evaluation logs hold them (TOFU, arXiv:2401.06121).

For each question set one pass scores true, paraphrased and perturbed answers together, and one generates. Tables are
computed from the log afterwards (`shared.text.aggregate`): a model that has diverged gives a log like any other, with
NaN or infinite losses in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from shared.errors import DataError
from shared.metrics.text.membership import min_k_plus_plus_score, min_k_score, zlib_scores
from shared.metrics.text.memorization import exact_memorization, extraction_strength
from shared.metrics.text.rouge import rouge
from shared.text.data import QaRow
from shared.text.encode import EncodedRow, Encoder
from shared.text.generate import Limit, generate_ids, prompts_of, text_of
from shared.text.gradient_norm import gradient_norms
from shared.text.logs.log import HOLDOUT, AnswerScores, Array, EvalLog, floats
from shared.text.score import RowScore, score
from shared.text.task import EvaluationSpec

# Membership is a question about the forget set, and its answer a comparison with the holdout set.
_MEMBERSHIP_SETS = ("forget", HOLDOUT)


class Evaluation:
    """Question sets ("retain", "forget", "real_authors", "world_facts", "holdout") that models are evaluated on.

    Of spec this reads epsilon, max_total, max_new, memorization (of the forget set) and membership; `sets` holds the
    rows that it chose. In a set either all rows have a paraphrase or none, and all have equally many perturbed
    answers (or none, such as holdout sets). Raises DataError naming set and row, also for rows that do not fit the
    encoder's window.
    """

    def __init__(self, encoder: Encoder, sets: Mapping[str, Sequence[QaRow]], spec: EvaluationSpec) -> None:
        self._encoder, self._spec, self._sets = encoder, spec, sets
        self._limit = Limit(spec.max_total, spec.max_new)
        for name, rows in sets.items():
            _check(name, rows)
        self._encoded = {name: _encoded(encoder, rows) for name, rows in sets.items()}
        self._prompts = {
            name: prompts_of(encoder, [(row.index, row.question) for row in rows])
            for name, rows in sets.items()
            if name != HOLDOUT  # nobody asks what a model says there
        }

    def __call__(self, model: nn.Module, source: str = "model") -> EvalLog:
        """Log of `model`, on its device; a set that was not given is not in it.

        source: what messages call the log. A row whose answer has no token has loss NaN.
        """
        return EvalLog({name: self._measured(model, name) for name in self._sets}, source, self._spec.epsilon)

    def _measured(self, model: nn.Module, name: str) -> AnswerScores:
        rows, encoded = self._sets[name], self._encoded[name]
        membership = self._spec.membership and name in _MEMBERSHIP_SETS
        scores = score(model, encoded, moments=membership)
        answers = scores[:: len(scores) // len(rows)]
        fields: dict[str, Any] = _losses(scores, rows)
        if self._spec.memorization and name == "forget":
            fields |= _memorization(answers)
        if membership:
            fields |= _membership(answers, [row.answer for row in rows])
            fields["grad_norm"] = gradient_norms(model, encoded[:: len(scores) // len(rows)])
        if name in self._prompts:
            fields |= self._generated(model, name)
        return AnswerScores(
            [row.index for row in rows],
            question=[row.question for row in rows],
            truth=[row.answer for row in rows],
            **fields,
        )

    def _generated(self, model: nn.Module, name: str) -> dict[str, Any]:
        ids = generate_ids(model, self._encoder, self._prompts[name], self._limit)
        answers = [text_of(self._encoder, answer) for answer in ids]
        return {"generated": answers, **rouge(answers, [row.answer for row in self._sets[name]])._asdict()}


def _check(name: str, rows: Sequence[QaRow]) -> None:
    if not rows:
        raise DataError(f"question set '{name}' has no rows")
    first = rows[0]
    for row in rows:
        if (row.paraphrased_answer is None) != (first.paraphrased_answer is None):
            having, lacking = (first, row) if row.paraphrased_answer is None else (row, first)
            raise DataError(f"{name}: row {having.index} has a paraphrase, row {lacking.index} has none")
        if len(row.perturbed_answers) != len(first.perturbed_answers):
            found, expected = len(row.perturbed_answers), len(first.perturbed_answers)
            raise DataError(f"{name}: row {row.index} has {found} perturbed answers, row {first.index} has {expected}")


def _encoded(encoder: Encoder, rows: Sequence[QaRow]) -> list[EncodedRow]:
    """K rows for each question: the answer, its paraphrase if there is one, the perturbed answers."""
    return encoder.rows((row.index, row.question, answer) for row in rows for answer in _answers(row))


def _answers(row: QaRow) -> list[str]:
    paraphrase = [] if row.paraphrased_answer is None else [row.paraphrased_answer]
    return [row.answer, *paraphrase, *row.perturbed_answers]


def _losses(scores: Sequence[RowScore], rows: Sequence[QaRow]) -> dict[str, Array]:
    """Mean losses and label counts of answers (N,), paraphrases (N,) and perturbed answers (N, P), where present."""
    losses = floats([s.avg_loss for s in scores]).reshape(len(rows), -1)
    counts = floats([s.num_labels for s in scores]).reshape(len(rows), -1)
    fields = {"avg_loss": losses[:, 0], "num_tokens": counts[:, 0]}
    if rows[0].paraphrased_answer is not None:
        fields |= {"paraphrase_loss": losses[:, 1], "paraphrase_num_tokens": counts[:, 1]}
    if num_perturbed := len(rows[0].perturbed_answers):
        fields |= {"perturbed_loss": losses[:, -num_perturbed:], "perturbed_num_tokens": counts[:, -num_perturbed:]}
    return fields


def _memorization(answers: Sequence[RowScore]) -> dict[str, Array]:
    return {
        "extraction_strength": floats([extraction_strength(s.hits) for s in answers]),
        "exact_memorization": floats([exact_memorization(s.hits) for s in answers]),
    }


def _membership(answers: Sequence[RowScore], texts: Sequence[str]) -> dict[str, Array]:
    return {
        "zlib": zlib_scores(floats([s.avg_loss for s in answers]), texts),
        "min_k": floats([min_k_score(s.log_probs) for s in answers]),
        "min_k_plus_plus": floats([min_k_plus_plus_score(s.log_probs, s.mean, s.variance) for s in answers]),
    }
