"""Per-question evaluation of one language model, in memory: what every log layout is read into and written from."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

Array = NDArray[np.float64]

# TOFU's four question sets; real authors and world facts are ordinary knowledge that no one asked to forget.
SETS = ("retain", "forget", "real_authors", "world_facts")
# Membership inference compares the forget set with these unseen answers. Only losses and scores are needed of them.
HOLDOUT = "holdout"


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Arrays over the N rows of one question set, in row order. Losses are in nats and may be NaN or infinite.

    index: row numbers in the data set, ascending. avg_loss: (N,) mean negative log-likelihood of the true answer's
    labels, the end-of-sequence token included; num_tokens: (N,) how many labels. paraphrase_loss: (N,), None where the
    data have no paraphrase (the true answer stands in); perturbed_loss: (N, P); with their label counts.
    rouge1_recall, rougeL_recall, rougeL_f1: (N,) in [0, 1], of the greedily generated answer. question: the prompt;
    truth: the reference answer. The rest, (N,) each: `shared.metrics.text.memorization` and `.membership`.
    """

    index: list[int]
    avg_loss: Array
    num_tokens: Array | None = None
    paraphrase_loss: Array | None = None
    perturbed_loss: Array | None = None
    rouge1_recall: Array | None = None
    rougeL_recall: Array | None = None  # noqa: N815 (the field's and the log files' own name)
    rougeL_f1: Array | None = None  # noqa: N815
    generated: list[str] | None = None
    question: list[str] | None = None
    truth: list[str] | None = None
    paraphrase_num_tokens: Array | None = None
    perturbed_num_tokens: Array | None = None
    extraction_strength: Array | None = None
    exact_memorization: Array | None = None
    zlib: Array | None = None
    min_k: Array | None = None
    min_k_plus_plus: Array | None = None
    grad_norm: Array | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.index):
                raise ValueError(f"AnswerScores: {field.name} has {len(value)} rows, index has {len(self.index)}")

    def __len__(self) -> int:
        return len(self.index)

    def first(self, num_rows: int) -> "AnswerScores":
        """The first rows of every array (all, if there are fewer)."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[:num_rows] for name, value in values.items() if value is not None})


@dataclass(frozen=True, eq=False)
class EvalLog:
    """Question sets of one evaluated model, by name: those of `SETS`, and `HOLDOUT` where membership was scored.

    source: where the log comes from, for messages. epsilon: what the log's convention adds to the denominators of
    truth ratio and normalised probability: 0 in the paper's code, 1e-10 in OpenUnlearning.
    """

    sets: dict[str, AnswerScores]
    source: str
    epsilon: float = 0.0

    def of(self, name: str) -> AnswerScores:
        """The question set; `DataError` if the log does not have it."""
        if name not in self.sets:
            raise DataError(f"{self.source}: question set '{name}' is missing, the log has {', '.join(self.sets)}")
        return self.sets[name]

    def needed(self, name: str, field: str) -> Any:
        """One array of a question set; `DataError` if it was not measured."""
        value = getattr(self.of(name), field)
        if value is None:
            raise DataError(f"{self.source}: question set '{name}' has no {field}")
        return value


def floats(values: Sequence[Any]) -> Array:
    """Float64 array, (N,) or (N, P)."""
    return np.array(values, dtype=np.float64)
