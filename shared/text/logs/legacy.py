"""The paper's own logs, `eval_log_aggregated.json` (locuslab/tofu), read in both versions and written in the newer.

One object a question set, in it one object a metric. Version 1 keys the rows "0", "1", ...; version 0 (copies in the
repository of NPO, arXiv:2404.05868) has lists instead and no `truth_ratio`. Real authors and world facts have no
paraphrase: their `avg_paraphrased_loss` is a second measurement of `avg_gt_loss`, equal to it up to batching noise of
bfloat16, and is what the released code uses; it is kept where it differs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError, nearest
from shared.files import write_json
from shared.metrics.text.probability import normalised_probability
from shared.metrics.text.truth_ratio import log_truth_ratio, truth_ratio
from shared.text.logs.log import SETS, AnswerScores, Array, EvalLog
from shared.text.logs.values import (
    ANY,
    LOSS,
    SHARE,
    Bounds,
    column,
    encode,
    encode_counts,
    row_numbers,
    same_rows,
    table,
)

TOP_KEYS = {
    "retain": "eval_log.json",
    "forget": "eval_log_forget.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
_REFERENCE = "avg_gt_loss"
_WITH_OPTIONS = ("real_authors", "world_facts")


def is_legacy(content: Mapping[str, Any]) -> bool:
    """Whether a file's top keys are those of this layout (any of them: a missing one is an error of its own)."""
    return any(key in content for key in TOP_KEYS.values())


def parse_legacy(content: Mapping[str, Any], source: str, sets: Sequence[str] = SETS) -> EvalLog:
    """Question sets `sets` of a log of either version; each must be there."""
    found = {}
    for name in sets:
        key = TOP_KEYS[name]
        if key not in content:
            raise DataError(f"{source}: top key '{key}' is missing{nearest(key, list(content))}")
        found[name] = _parse_set(content[key], f"{source}: {key}")
    return EvalLog(found, source)


def _parse_set(metrics: Any, where: str) -> AnswerScores:
    if not isinstance(metrics, dict):
        raise DataError(f"{where} is not an object")
    index = row_numbers(_rows(metrics, _REFERENCE, where), f"{where}: {_REFERENCE}")

    def values(key: str) -> list[Any]:
        return same_rows(_rows(metrics, key, where), index, f"{where}: {key}", _REFERENCE)

    def numbers(key: str, bounds: Bounds = ANY) -> Array:
        return column(values(key), index, f"{where}: {key}", bounds)

    def tables(key: str, bounds: Bounds = ANY) -> Array:
        return table(values(key), index, f"{where}: {key}", bounds)

    avg_loss = numbers(_REFERENCE, LOSS)
    paraphrase_loss = numbers("avg_paraphrased_loss", LOSS)
    has_paraphrase = not np.array_equal(paraphrase_loss, avg_loss, equal_nan=True)
    optional: dict[str, Any] = {}
    if "num_token_gt" in metrics:
        optional["num_tokens"] = numbers("num_token_gt")
    if "num_token_paraphrased" in metrics and has_paraphrase:
        optional["paraphrase_num_tokens"] = numbers("num_token_paraphrased")
    if "num_token_perturb" in metrics:
        optional["perturbed_num_tokens"] = tables("num_token_perturb")
    if "rouge1_recall" in metrics:
        optional["rouge1_recall"] = numbers("rouge1_recall", SHARE)
    if "generated_text" in metrics:
        optional |= _texts(values("generated_text"), index, where)
    return AnswerScores(
        index=index,
        avg_loss=avg_loss,
        paraphrase_loss=paraphrase_loss if has_paraphrase else None,
        perturbed_loss=tables("average_perturb_loss", LOSS),
        rougeL_recall=numbers("rougeL_recall", SHARE),
        **optional,
    )


def _rows(metrics: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """Rows of a metric by key; the lists of version 0 are keyed by position."""
    if key not in metrics:
        raise DataError(f"{where}: key '{key}' is missing{nearest(key, list(metrics))}")
    rows = metrics[key]
    if isinstance(rows, list):
        return {str(row): value for row, value in enumerate(rows)}
    if not isinstance(rows, dict):
        raise DataError(f"{where}: {key} is neither an object nor a list of rows")
    return rows


def _texts(values: list[Any], index: Sequence[int], where: str) -> dict[str, Any]:
    """`generated_text`: prompt, generated answer, true answer."""
    for row, value in zip(index, values, strict=True):
        if not (isinstance(value, list) and len(value) == 3 and all(isinstance(text, str) for text in value)):
            raise DataError(f"{where}: generated_text, row {row}, is not a list of prompt, generated and true answer")
    return {name: [value[i] for value in values] for i, name in enumerate(("question", "generated", "truth"))}


def write_legacy(log: EvalLog, path: str | Path) -> None:
    """Write version 1, atomically: every question set of the log that the layout knows.

    What it has no place for is left out: token-level scores, the holdout set, ROUGE-L F1, and `log.epsilon` (a reader
    takes 0, as this layout's code does). Sums of losses are written where token counts are known.
    """
    names = [name for name in SETS if name in log.sets]
    write_json(path, {TOP_KEYS[name]: _write_set(log, name) for name in names})


def _write_set(log: EvalLog, name: str) -> dict[str, dict[str, Any]]:
    scores = log.of(name)
    perturbed = log.needed(name, "perturbed_loss")
    paraphrase = scores.avg_loss if scores.paraphrase_loss is None else scores.paraphrase_loss
    paraphrase_tokens = scores.num_tokens if scores.paraphrase_loss is None else scores.paraphrase_num_tokens
    columns: dict[str, Any] = {
        _REFERENCE: encode(scores.avg_loss),
        **_counted("gt_loss", "num_token_gt", scores.avg_loss, scores.num_tokens),
        **_written_texts(scores),
        **({} if scores.rouge1_recall is None else {"rouge1_recall": encode(scores.rouge1_recall)}),
        "rougeL_recall": encode(log.needed(name, "rougeL_recall")),
        "average_perturb_loss": encode(perturbed),
        "avg_paraphrased_loss": encode(paraphrase),
        "truth_ratio": encode(truth_ratio(log_truth_ratio(paraphrase, perturbed))),
        **_counted("paraphrased_loss", "num_token_paraphrased", paraphrase, paraphrase_tokens),
        **_counted("perturb_loss", "num_token_perturb", perturbed, scores.perturbed_num_tokens),
    }
    if name in _WITH_OPTIONS:
        with np.errstate(divide="ignore"):  # a share of 0 has an infinite loss
            columns["normalized_gt_loss"] = encode(-np.log(normalised_probability(scores.avg_loss, perturbed)))
    keys = [str(row) for row in scores.index]
    return {key: dict(zip(keys, values, strict=True)) for key, values in columns.items()}


def _counted(loss_key: str, count_key: str, mean_loss: Array, counts: Array | None) -> dict[str, Any]:
    """Summed loss and label count of every answer."""
    return {} if counts is None else {loss_key: encode(mean_loss * counts), count_key: encode_counts(counts)}


def _written_texts(scores: AnswerScores) -> dict[str, Any]:
    if scores.generated is None or scores.question is None or scores.truth is None:
        return {}
    return {"generated_text": [list(t) for t in zip(scores.question, scores.generated, scores.truth, strict=True)]}
