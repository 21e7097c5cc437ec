"""Membership inference on answers, as in OpenUnlearning (arXiv:2506.12618): scores, AUC, privleak.

A score is low for an answer that the model knows, like a loss. Per-token statistics are those of an answer's labels in
order; the last one (the end-of-sequence token) is dropped here, as in the released code. An answer without other labels
scores 0. The LOSS attack's score is `avg_loss` itself.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from shared.errors import DataError
from shared.metrics.text.probability import Floats

LOWEST_SHARE = 0.4
SMALLEST_VARIANCE = 1e-6


def zlib_scores(avg_loss: Floats, answers: Sequence[str]) -> Floats:
    """Mean loss / bytes of the zlib-compressed answer (N,) (Carlini et al., arXiv:2012.07805)."""
    sizes = [len(zlib.compress(answer.encode())) for answer in answers]
    return np.asarray(avg_loss, np.float64) / np.array(sizes, np.float64)


def min_k_score(log_probs: Floats, share: float = LOWEST_SHARE) -> float:
    """Min-K% (Shi et al., arXiv:2310.16789): minus the mean of the lowest max(1, int(share * n)) token log-probs."""
    return _lowest(np.asarray(log_probs, np.float64)[:-1], share)


def min_k_plus_plus_score(log_probs: Floats, mean: Floats, variance: Floats, share: float = LOWEST_SHARE) -> float:
    """Min-K%++ (Zhang et al., arXiv:2404.02936): Min-K of (log p - mean) / sqrt(variance).

    mean, variance: (T,) of log p under the model's own next-token distribution at each label; the variance is clamped
    from below at 1e-6.
    """
    spread = np.sqrt(np.maximum(np.asarray(variance, np.float64), SMALLEST_VARIANCE))
    return _lowest(((np.asarray(log_probs, np.float64) - mean) / spread)[:-1], share)


def _lowest(values: Floats, share: float) -> float:
    if len(values) == 0:
        return 0.0
    return float(-np.sort(values)[: max(1, int(len(values) * share))].mean())


def membership_auc(forget_scores: Floats, holdout_scores: Floats) -> float:
    """Area under the ROC curve with labels forget = 0, holdout = 1, in [0, 1]: 1 if the forget rows look fully like
    members, 0.5 if they cannot be told from unseen ones.

    A NaN score (a diverged model) counts as infinite: not a member.
    """
    from sklearn.metrics import roc_auc_score  # most evaluations score no membership

    if len(forget_scores) == 0 or len(holdout_scores) == 0:
        counts = f"{len(forget_scores)} forget and {len(holdout_scores)} holdout rows"
        raise DataError(f"membership AUC needs rows of both kinds, got {counts}")
    scores = np.concatenate([np.asarray(forget_scores, np.float64), np.asarray(holdout_scores, np.float64)])
    labels = np.repeat([0, 1], [len(forget_scores), len(holdout_scores)])
    largest = np.finfo(np.float64).max
    return float(roc_auc_score(labels, np.nan_to_num(scores, nan=largest, posinf=largest, neginf=-largest)))


def privleak(auc: float, reference_auc: float = 0.5) -> float:
    """100 * ((1 - AUC) - (1 - AUC_ref)) / ((1 - AUC_ref) + 1e-10), in % (MUSE, arXiv:2407.06460).

    AUC: of Min-K on the unlearned model; AUC_ref: on the retain model. 0 is best; negative: forget rows look
    more like members than to the retain model; positive: less.
    """
    reference = 1 - reference_auc
    return 100 * ((1 - auc) - reference) / (reference + 1e-10)
