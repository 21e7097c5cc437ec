"""Read OpenUnlearning's logs (arXiv:2506.12618), TOFU_EVAL.json: one entry a metric.

    "forget_Q_A_Prob": {"agg_value": 0.93, "value_by_index": {"0": {"prob": 0.94, "avg_loss": 0.06}, ...}}

Rows of perturbed answers hold lists. Beyond their keys, ours carry `num_tokens`, a `grad_norm` attack and the entry
`epsilon` (the log's convention; a log without it is one of theirs, and adds 1e-10 to denominators); their programs look
at known metrics only. Losses are what is read: the other values follow from them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shared.errors import DataError, nearest
from shared.metrics.text.probability import OPEN_UNLEARNING_EPSILON
from shared.text.logs.log import HOLDOUT, SETS, AnswerScores, Array, EvalLog
from shared.text.logs.values import ANY, LOSS, SHARE, Bounds, column, decode, row_numbers, same_rows, strings, table

PREFIXES = {"retain": "retain_", "forget": "forget_", "real_authors": "ra_", "world_facts": "wf_"}
PARAPHRASED = ("retain", "forget")
# Token-level scores of the forget set have no prefix.
MEMORIZATION = {"retain": "retain_", "forget": "", "real_authors": "ra_", "world_facts": "wf_"}
MEMORIZATION_FIELDS = ("extraction_strength", "exact_memorization")
TEXT_KEYS = {"question": "input", "truth": "ground_truth", "generated": "generation"}
EPSILON_KEY = "epsilon"
ATTACK_FIELDS = {
    "mia_loss": "avg_loss",
    "mia_zlib": "zlib",
    "mia_min_k": "min_k",
    "mia_min_k_plus_plus": "min_k_plus_plus",
    "mia_gradnorm": "grad_norm",
}


def is_open_unlearning(content: Mapping[str, Any]) -> bool:
    """Whether some entry of the file has values by row."""
    return any(isinstance(entry, dict) and "value_by_index" in entry for entry in content.values())


def is_summary(content: Mapping[str, Any]) -> bool:
    """Whether the file is a TOFU_SUMMARY.json: names and numbers."""
    return bool(content) and all(isinstance(value, int | float) for value in content.values())


class Entries:
    """Metrics of one file, with the file's name in every complaint."""

    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        self.content = content
        self.source = source

    def rows(self, metric: str) -> dict[str, Any]:
        """`value_by_index` of a metric."""
        if metric not in self.content:
            raise DataError(f"{self.source}: key '{metric}' is missing{nearest(metric, list(self.content))}")
        return self.rows_of(self.content[metric], metric)

    def rows_of(self, entry: Any, metric: str) -> dict[str, Any]:
        """The same of an entry, which may lie inside another."""
        rows = entry.get("value_by_index") if isinstance(entry, dict) else None
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            raise DataError(f"{self.source}: {metric} has no object of rows 'value_by_index'")
        return rows

    def has(self, metric: str, key: str) -> bool:
        """Whether the rows of a metric have a field (the first one decides; the others must follow)."""
        return metric in self.content and key in next(iter(self.rows(metric).values()), {})

    def field(self, rows: Mapping[str, Any], metric: str, key: str, index: Sequence[int], like: str) -> list[Any]:
        """One field of every row, in the order of `index`, the rows of the metric `like`."""
        ordered = same_rows(rows, index, f"{self.source}: {metric}", like)
        for number, row in zip(index, ordered, strict=True):
            if key not in row:
                raise DataError(f"{self.source}: {metric}, row {number}: key '{key}' is missing{nearest(key, row)}")
        return [row[key] for row in ordered]


def parse_open_unlearning(content: Mapping[str, Any], source: str, sets: Sequence[str] = SETS) -> EvalLog:
    """Question sets `sets` of a log, each of which must be there; and the holdout set, if there is one."""
    entries = Entries(content, source)
    found = {name: _parse_set(entries, name) for name in sets}
    if "forget" in found:
        found |= _parse_holdout(entries)
    entry = content.get(EPSILON_KEY, {"agg_value": OPEN_UNLEARNING_EPSILON})
    value = entry.get("agg_value") if isinstance(entry, dict) else None
    return EvalLog(found, source, decode(value, f"{source}: {EPSILON_KEY}"))


def _parse_set(entries: Entries, name: str) -> AnswerScores:
    prefix = PREFIXES[name]
    like = f"{prefix}Q_A_Prob"
    index = row_numbers(entries.rows(like), f"{entries.source}: {like}")

    def values(metric: str, key: str) -> list[Any]:
        return entries.field(entries.rows(metric), metric, key, index, like)

    def numbers(metric: str, key: str, bounds: Bounds = ANY) -> Array:
        return column(values(metric, key), index, f"{entries.source}: {metric}: {key}", bounds)

    def texts(metric: str, key: str) -> list[str]:
        return strings(values(metric, key), index, f"{entries.source}: {metric}: {key}")

    def tables(metric: str, key: str, bounds: Bounds = ANY) -> Array:
        return table(values(metric, key), index, f"{entries.source}: {metric}: {key}", bounds)

    pert, para, said = (f"{prefix}Q_A_{kind}" for kind in ("PERT_Prob", "PARA_Prob", "ROUGE"))
    avg_loss = numbers(like, "avg_loss", LOSS)
    paraphrase_loss = numbers(para, "avg_loss", LOSS) if name in PARAPHRASED or para in entries.content else None
    has_paraphrase = paraphrase_loss is not None and not np.array_equal(paraphrase_loss, avg_loss, equal_nan=True)
    optional: dict[str, tuple[str, str, Callable[[str, str], Any]]] = {
        "num_tokens": (like, "num_tokens", numbers),
        **({"paraphrase_num_tokens": (para, "num_tokens", numbers)} if has_paraphrase else {}),
        "perturbed_num_tokens": (pert, "num_tokens", tables),
        "rouge1_recall": (said, "rouge1_recall", numbers),
        "rougeL_f1": (said, "rougeL_f1", numbers),
        **{field: (said, key, texts) for field, key in TEXT_KEYS.items()},
    }
    return AnswerScores(
        index=index,
        avg_loss=avg_loss,
        paraphrase_loss=paraphrase_loss if has_paraphrase else None,
        perturbed_loss=tables(pert, "avg_loss", LOSS),
        rougeL_recall=numbers(said, "rougeL_recall", SHARE),
        **{field: read(metric, key) for field, (metric, key, read) in optional.items() if entries.has(metric, key)},
        **_token_scores(entries, name, index, like),
    )


def _token_scores(entries: Entries, name: str, index: list[int], like: str) -> dict[str, Any]:
    """Extraction strength, exact memorisation and, of the forget set, membership scores, where they are."""
    found = {}
    for field in MEMORIZATION_FIELDS:
        metric = MEMORIZATION[name] + field
        if metric in entries.content:
            scores = entries.field(entries.rows(metric), metric, "score", index, like)
            # An answer without labels has no score: null there, NaN here.
            found[field] = column(
                ["NaN" if score is None else score for score in scores], index, f"{entries.source}: {metric}: score"
            )
    return found | (_attack_scores(entries, "forget", index, like) if name == "forget" else {})


def _attack_scores(entries: Entries, side: str, index: list[int], like: str) -> dict[str, Any]:
    """Membership scores of one side, "forget" or "holdout", by field."""
    found = {}
    for metric, field in ATTACK_FIELDS.items():
        entry = entries.content.get(metric)
        if not isinstance(entry, dict) or side not in entry or (side == "forget" and field == "avg_loss"):
            continue
        scores = entries.field(entries.rows_of(entry[side], f"{metric}.{side}"), metric, "score", index, like)
        found[field] = column(scores, index, f"{entries.source}: {metric}.{side}: score")
    return found


def _parse_holdout(entries: Entries) -> dict[str, AnswerScores]:
    """Scores of the unseen answers, by their loss attack; a log without that attack has no holdout set for us."""
    entry = entries.content.get("mia_loss")
    if not isinstance(entry, dict) or HOLDOUT not in entry:
        return {}
    like = f"mia_loss.{HOLDOUT}"
    index = row_numbers(entries.rows_of(entry[HOLDOUT], like), f"{entries.source}: {like}")
    scores = _attack_scores(entries, HOLDOUT, index, like)
    return {HOLDOUT: AnswerScores(index=index, **scores)}
