"""Write OpenUnlearning's logs (arXiv:2506.12618): TOFU_EVAL.json and TOFU_SUMMARY.json.

The names, rows and aggregates are theirs, so that their programs take the file as `retain_logs_path` and its summary as
one of their own; truth ratios are the geometric ones. Denominators have `log.epsilon`, which the file states.
"""

from pathlib import Path
from typing import Any

import numpy as np

from shared.files import write_json
from shared.metrics.text.probability import answer_probability
from shared.metrics.text.truth_ratio import forget_aggregate, retain_aggregate, truth_ratio
from shared.text.aggregate import UTILITY_SETS, aggregate, log_ratios, membership_aucs, probabilities
from shared.text.logs.log import HOLDOUT, SETS, AnswerScores, Array, EvalLog
from shared.text.logs.open_unlearning import (
    ATTACK_FIELDS,
    EPSILON_KEY,
    MEMORIZATION,
    MEMORIZATION_FIELDS,
    PARAPHRASED,
    PREFIXES,
    TEXT_KEYS,
)
from shared.text.logs.values import encode, encode_counts

Entry = dict[str, Any]


def write_open_unlearning(log: EvalLog, folder: str | Path, retain: EvalLog | None = None) -> Path:
    """Write both files into `folder`, each atomically, and return the path of TOFU_EVAL.json.

    retain: log of the retain model; without it forget quality is null in the log and absent from the summary. Model
    utility is that of the utility sets which the log has, absent if it has none.
    """
    entries: dict[str, Entry] = {EPSILON_KEY: {"agg_value": log.epsilon}}
    for name in SETS:
        if name in log.sets:
            entries |= _set_entries(log, name)
    entries |= _attack_entries(log)
    entries |= _aggregates(log, retain)
    entries = dict(sorted(entries.items()))
    path = Path(folder) / "TOFU_EVAL.json"
    write_json(path, entries)
    numbers = {key: entry["agg_value"] for key, entry in entries.items() if key != EPSILON_KEY}
    write_json(path.with_name("TOFU_SUMMARY.json"), {k: v for k, v in numbers.items() if isinstance(v, float)})
    return path


def _aggregates(log: EvalLog, retain: EvalLog | None) -> dict[str, Entry]:
    """Metrics that have a value and no rows."""
    utility_sets = [name for name in UTILITY_SETS if name in log.sets]
    values = aggregate(log, retain, utility_sets=utility_sets)
    found = {key: {"agg_value": values[key]} for key in ("model_utility", "privleak") if key in values}
    return found | {"forget_quality": {"agg_value": values.get("forget_quality")}}


def _set_entries(log: EvalLog, name: str) -> dict[str, Entry]:
    scores, prefix = log.of(name), PREFIXES[name]
    ratios = log_ratios(log, name, epsilon=log.epsilon)
    mean_ratio = forget_aggregate(ratios, log.epsilon) if name == "forget" else retain_aggregate(ratios)
    entries = {
        f"{prefix}Q_A_Prob": _losses(scores, scores.avg_loss, scores.num_tokens),
        f"{prefix}Q_A_PERT_Prob": _losses(scores, log.needed(name, "perturbed_loss"), scores.perturbed_num_tokens),
        f"{prefix}Q_A_ROUGE": _said(log, name),
        # The retain log's truth ratios are looked up by this name, in lower case.
        "forget_truth_ratio" if name == "forget" else f"{prefix}Truth_Ratio": _entry(
            scores, mean_ratio, {"score": truth_ratio(ratios)}
        ),
    }
    if scores.paraphrase_loss is not None:
        entries[f"{prefix}Q_A_PARA_Prob"] = _losses(scores, scores.paraphrase_loss, scores.paraphrase_num_tokens)
    elif name in PARAPHRASED:  # the layout demands one: the answer stands in, as in memory
        entries[f"{prefix}Q_A_PARA_Prob"] = _losses(scores, scores.avg_loss, scores.num_tokens)
    if name not in PARAPHRASED:
        share = probabilities(log, name, log.epsilon)
        entries[f"{prefix}Q_A_Prob_normalised"] = _entry(scores, share.mean(), {"prob": share})
    for field in MEMORIZATION_FIELDS:
        found = getattr(scores, field)
        if found is not None:
            entries[MEMORIZATION[name] + field] = _memorization(scores, found)
    return entries


def _losses(scores: AnswerScores, losses: Array, counts: Array | None) -> Entry:
    """Probabilities and mean losses of one answer a row, (N,), or of several, (N, P)."""
    probability = answer_probability(losses)
    entry = _entry(scores, probability.mean(), {"prob": probability, "avg_loss": losses})
    if counts is not None:
        for row, count in zip(entry["value_by_index"].values(), encode_counts(counts), strict=True):
            row["num_tokens"] = count
    return entry


def _said(log: EvalLog, name: str) -> Entry:
    scores, recall = log.of(name), log.needed(name, "rougeL_recall")
    optional = {"rouge1_recall": scores.rouge1_recall, "rougeL_f1": scores.rougeL_f1, "rougeL_recall": recall}
    entry = _entry(scores, recall.mean(), {key: values for key, values in optional.items() if values is not None})
    for field, key in TEXT_KEYS.items():
        texts = getattr(scores, field)
        if texts is not None:
            for row, text in zip(entry["value_by_index"].values(), texts, strict=True):
                row[key] = text
    return entry


def _memorization(scores: AnswerScores, found: Array) -> Entry:
    """An answer without labels has no score: null."""
    known = found[~np.isnan(found)]
    entry = _entry(scores, known.mean() if len(known) else np.nan, {"score": found})
    for row in entry["value_by_index"].values():
        row["score"] = None if row["score"] == "NaN" else row["score"]
    return entry


def _attack_entries(log: EvalLog) -> dict[str, Entry]:
    aucs = membership_aucs(log)
    entries: dict[str, Entry] = {}
    for metric, auc in aucs.items():
        entries[metric] = {"agg_value": auc, "auc": auc}
        for side in ("forget", HOLDOUT):
            found = getattr(log.of(side), ATTACK_FIELDS[metric])
            entries[metric][side] = _entry(log.of(side), found.mean(), {"score": found})
    return entries


def _entry(scores: AnswerScores, value: Any, columns: dict[str, Array]) -> Entry:
    """`agg_value`, and `value_by_index` with one field a column."""
    encoded = [encode(column) for column in columns.values()]
    rows = {str(row): dict(zip(columns, v, strict=True)) for row, *v in zip(scores.index, *encoded, strict=True)}
    return {"agg_value": encode(value), "value_by_index": rows}
