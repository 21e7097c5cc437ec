"""From a per-question log to the numbers of TOFU's tables (arXiv:2401.06121, section 2.2): no model, no torch."""

import re
from collections.abc import Sequence

from shared.errors import DataError
from shared.metrics.text.forget_quality import forget_quality
from shared.metrics.text.membership import membership_auc, privleak
from shared.metrics.text.probability import Floats, answer_probability, normalised_probability
from shared.metrics.text.truth_ratio import Kind, forget_aggregate, log_truth_ratio, retain_aggregate
from shared.metrics.text.utility import model_utility
from shared.text.logs.log import HOLDOUT, EvalLog

# Model utility is about these; each contributes probability, ROUGE-L recall and truth ratio.
UTILITY_SETS = ("retain", "real_authors", "world_facts")
# Their questions come with wrong answers of the same standing, against which the probability is normalised.
_WITH_OPTIONS = ("real_authors", "world_facts")
# Cut by `num_rows`: the paper's code evaluates the first 300 rows of these two (forget10, retain_perturbed).
_FICTITIOUS = ("retain", "forget")
# Score of the membership attack -> name of its AUC.
ATTACKS = {
    "avg_loss": "mia_loss",
    "zlib": "mia_zlib",
    "min_k": "mia_min_k",
    "min_k_plus_plus": "mia_min_k_plus_plus",
    "grad_norm": "mia_gradnorm",
}


def aggregate(
    log: EvalLog,
    retain: EvalLog | None = None,
    *,
    truth_ratio: Kind = "geometric",
    num_rows: int | None = None,
    utility_sets: Sequence[str] = UTILITY_SETS,
    epsilon: float | None = None,
) -> dict[str, float]:
    """Metrics of one model by name.

    `probability_<set>`, `rouge_l_recall_<set>`, `truth_ratio_<set>` of the utility sets and of `forget`, and
    `model_utility`, all in [0, 1]; with the `retain` model's log `forget_quality` (p), `log10_forget_quality` (finite)
    and `ks_statistic`, which are absent without it, never 1; and what the log has of `extraction_strength`,
    `exact_memorization` (of the forget set), `mia_*` (AUC against the holdout set) and `privleak` (in %; against 0.5
    without a retain log that has a holdout set).

    truth_ratio: `shared.metrics.text.truth_ratio`; num_rows: first rows of retain and forget set (300 in the paper's
    code; None: all); utility_sets: fewer for a model that knows no real authors (none: no utility); epsilon: None is
    the log's own. Raises `DataError` for a set or field that the log lacks, and if the logs' forget questions differ.
    """
    if num_rows is not None and num_rows < 1:
        raise DataError(f"{log.source}: the first {num_rows} rows are none; ask for 1 or more")
    epsilon = log.epsilon if epsilon is None else epsilon
    log = _first_rows(log, num_rows)
    values: dict[str, float] = {}
    for name in (*utility_sets, "forget"):
        values |= _set_metrics(log, name, truth_ratio, epsilon)
    if utility_sets:
        values["model_utility"] = model_utility({k: v for k, v in values.items() if not k.endswith("_forget")})
    if retain is not None:
        retain = _first_rows(retain, num_rows)
        check_same_questions(log, retain)
        found = forget_quality(*[log_ratios(of, "forget", truth_ratio, epsilon) for of in (log, retain)])
        values["forget_quality"] = found.p_value
        values["log10_forget_quality"] = found.log10_p
        values["ks_statistic"] = found.statistic
    return values | _memorization(log) | _membership(log, retain)


def log_ratios(log: EvalLog, name: str, kind: Kind = "geometric", epsilon: float = 0.0) -> Floats:
    """log R (N,) of a question set; where it has no paraphrase, the answer itself is the true one."""
    scores = log.of(name)
    true_loss = scores.avg_loss if scores.paraphrase_loss is None else scores.paraphrase_loss
    return log_truth_ratio(true_loss, log.needed(name, "perturbed_loss"), kind, epsilon)


def probabilities(log: EvalLog, name: str, epsilon: float = 0.0) -> Floats:
    """Probability (N,) of the true answers of a question set, in [0, 1]."""
    if name in _WITH_OPTIONS:
        return normalised_probability(log.of(name).avg_loss, log.needed(name, "perturbed_loss"), epsilon)
    return answer_probability(log.of(name).avg_loss)


def check_same_questions(log: EvalLog, retain: EvalLog) -> None:
    """Raise `DataError` unless both logs answer the same forget questions: same rows, same true answers.

    Row numbers alone do not tell: row 0 of forget10 is another question than row 0 of forget05.
    """
    ours, theirs = log.of("forget"), retain.of("forget")
    if ours.index != theirs.index:
        counts = f"{len(ours)} against {len(theirs)} rows"
        only = sorted(set(ours.index) ^ set(theirs.index))[0]
        why = f"{counts}, row {only} is in one of them only"
        raise DataError(f"{log.source} and {retain.source}: different forget questions ({why}); give the same split")
    if ours.truth is None or theirs.truth is None:
        return
    for row, a, b in zip(ours.index, ours.truth, theirs.truth, strict=True):
        if _letters(a) != _letters(b):
            why = f"the true answers of row {row} differ"
            raise DataError(
                f"{log.source} and {retain.source}: different forget questions ({why}); give the same split"
            )


def _letters(text: str) -> str:
    # Tokenizers differ in the spaces that they put back, and nothing else may differ.
    return re.sub(r"\W+", "", text).lower()


def _first_rows(log: EvalLog, num_rows: int | None) -> EvalLog:
    if num_rows is None:
        return log
    cut = {name: s.first(num_rows) if name in _FICTITIOUS else s for name, s in log.sets.items()}
    return EvalLog(cut, log.source, log.epsilon)


def _set_metrics(log: EvalLog, name: str, kind: Kind, epsilon: float) -> dict[str, float]:
    ratios = log_ratios(log, name, kind, epsilon)
    return {
        f"probability_{name}": float(probabilities(log, name, epsilon).mean()),
        f"rouge_l_recall_{name}": float(log.needed(name, "rougeL_recall").mean()),
        f"truth_ratio_{name}": forget_aggregate(ratios, epsilon) if name == "forget" else retain_aggregate(ratios),
    }


def _memorization(log: EvalLog) -> dict[str, float]:
    """Means over the forget rows; rows without labels (NaN) are left out, as in the released code."""
    found = {}
    for field in ("extraction_strength", "exact_memorization"):
        scores = getattr(log.of("forget"), field)
        if scores is not None and (scores == scores).any():
            found[field] = float(scores[scores == scores].mean())
    return found


def _membership(log: EvalLog, retain: EvalLog | None) -> dict[str, float]:
    found = membership_aucs(log)
    if "mia_min_k" in found:
        reference = {} if retain is None else membership_aucs(retain)
        found["privleak"] = privleak(found["mia_min_k"], reference.get("mia_min_k", 0.5))
    return found


def membership_aucs(log: EvalLog) -> dict[str, float]:
    """AUC of every membership attack whose scores the log has of both forget and holdout set."""
    if HOLDOUT not in log.sets:
        return {}
    pairs = {name: [getattr(log.of(s), field) for s in ("forget", HOLDOUT)] for field, name in ATTACKS.items()}
    return {name: membership_auc(*pair) for name, pair in pairs.items() if pair[0] is not None and pair[1] is not None}
