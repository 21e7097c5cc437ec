"""Truth ratio (TOFU, arXiv:2401.06121, section 2.2): R = probability of wrong answers / of the paraphrased true one.

Everything is a function of log R, which stays finite where R does not: after gradient ascent losses exceed 700 and
exp(-loss) is 0. With l the mean loss of the paraphrase and l_i those of the P perturbed answers:

    geometric   log R = l - mean_i l_i                          (released code, OpenUnlearning, all published numbers)
    arithmetic  log R = l + log((1/P) sum_i exp(-l_i))          (the paper's formula)

OpenUnlearning adds epsilon = 1e-10 in denominators: R = p_wrong / (p_true + epsilon).

Limits. Where log R is undefined (a NaN loss, or true and wrong answers both of probability 0), R counts as infinite:
0 in the aggregates of forget and of retain set, and the far end of the distribution that forget quality compares. A
model that has diverged must not pass for one that has forgotten.
"""

from typing import Literal, get_args

import numpy as np
from scipy.special import logsumexp

from shared.errors import ConfigError, nearest
from shared.metrics.text.probability import Floats, log_epsilon

Kind = Literal["geometric", "arithmetic"]
LARGEST_LOG = float(np.log(np.finfo(np.float64).max))


def log_truth_ratio(
    paraphrase_loss: Floats, perturbed_loss: Floats, kind: Kind = "geometric", epsilon: float = 0.0
) -> Floats:
    """log R of every row (N,): never NaN, may be minus or plus infinity.

    paraphrase_loss: (N,) mean losses of the paraphrased true answer (of the answer itself for real authors and world
    facts, which have no paraphrase); perturbed_loss: (N, P); epsilon: added to the true answer's probability.
    """
    true, wrong = _log_probabilities(paraphrase_loss, perturbed_loss, kind)
    with np.errstate(invalid="ignore"):
        ratio = wrong - np.logaddexp(true, log_epsilon(epsilon)) if epsilon else wrong - true
    return np.where(np.isnan(ratio), np.inf, ratio)


def truth_ratio(log_ratio: Floats) -> Floats:
    """R (N,), clipped to the largest finite number, so that means and JSON stay finite."""
    return np.exp(np.minimum(log_ratio, LARGEST_LOG))


def forget_aggregate(log_ratio: Floats, epsilon: float = 0.0) -> float:
    """mean min(R, 1/(R + epsilon)), in [0, 1]: 1 where true and wrong answers are equally likely."""
    inverse = -np.logaddexp(log_ratio, log_epsilon(epsilon)) if epsilon else -log_ratio
    return float(np.exp(np.minimum(log_ratio, inverse)).mean())


def retain_aggregate(log_ratio: Floats) -> float:
    """mean max(0, 1 - R), in [0, 1]: 1 where wrong answers are impossible. Also of real authors and world facts."""
    return float(-np.expm1(np.minimum(log_ratio, 0)).mean())


def true_share(
    paraphrase_loss: Floats, perturbed_loss: Floats, kind: Kind = "geometric", epsilon: float = 0.0
) -> float:
    """mean p_true / (p_true + p_wrong + epsilon), in [0, 1]: OpenUnlearning's third aggregate (arXiv:2506.12618).

    Undefined rows (see the module) count as 0.
    """
    true, wrong = _log_probabilities(paraphrase_loss, perturbed_loss, kind)
    with np.errstate(invalid="ignore"):
        log_share = true - np.logaddexp(np.logaddexp(true, wrong), log_epsilon(epsilon))
    return float(np.exp(np.where(np.isnan(log_share), -np.inf, log_share)).mean())


def _log_probabilities(paraphrase_loss: Floats, perturbed_loss: Floats, kind: Kind) -> tuple[Floats, Floats]:
    """log p_true (N,) and log p_wrong (N,)."""
    if kind not in get_args(Kind):
        raise ConfigError(f"truth ratio '{kind}' does not exist{nearest(kind, list(get_args(Kind)))}")
    wrong_losses = np.asarray(perturbed_loss, np.float64)
    if kind == "geometric":
        wrong = -wrong_losses.mean(axis=1)
    else:
        wrong = logsumexp(-wrong_losses, axis=1) - np.log(wrong_losses.shape[1])
    return -np.asarray(paraphrase_loss, np.float64), wrong
