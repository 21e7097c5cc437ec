"""ROUGE of a generated answer against the true one (Lin, 2004), by Google's `rouge_score` with its stemmer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shared.metrics.text.probability import Floats


class Rouge(NamedTuple):
    """(N,) each, in [0, 1]; TOFU reports ROUGE-L recall."""

    rouge1_recall: Floats
    rougeL_recall: Floats  # noqa: N815 (the field's and the log files' own name)
    rougeL_f1: Floats  # noqa: N815


def rouge(generated: Sequence[str], truth: Sequence[str]) -> Rouge:
    """Scores of every generated answer against its reference. Recall: the share of the reference that was said."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import, and readers of logs do without it

    if len(generated) != len(truth):
        raise ValueError(f"ROUGE: {len(generated)} generated answers, {len(truth)} references")
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    found = [scorer.score(reference, answer) for answer, reference in zip(generated, truth, strict=True)]
    columns = [(s["rouge1"].recall, s["rougeL"].recall, s["rougeL"].fmeasure) for s in found]
    return Rouge(*np.array(columns, np.float64).reshape(-1, 3).T)
