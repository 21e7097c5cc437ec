"""Forget quality (TOFU, arXiv:2401.06121, section 2.2.3): p-value of a Kolmogorov-Smirnov test.

The two samples are the truth ratios of the unlearned and of the retain model over the same forget questions; a high p
means that the test cannot tell them apart. The test sees ranks only, so R, 1/R and log R give the same p.

p is scipy's, which made the published numbers; it is 0 for complete separation of more than about 510 questions.
log10 p stays finite: there it comes from the exact null distribution of equal samples (Gnedenko and Korolyuk, 1951),

    P(D >= h/n) = 2 sum_{i>=1} (-1)^(i-1) C(2n, n - ih) / C(2n, n),

whose smallest value, at complete separation (h = n), is 2 / C(2n, n).
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import ks_2samp

from shared.metrics.text.probability import Floats

SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)  # below, p loses digits


class ForgetQuality(NamedTuple):
    """p in [0, 1] (0 where it underflows), log10 of it (finite, at most 0), KS statistic D in [0, 1]."""

    p_value: float
    log10_p: float
    statistic: float


def forget_quality(log_ratio: Floats, retain_log_ratio: Floats) -> ForgetQuality:
    """Two-sided test between the log truth ratios of two models over the same n questions, (n,) each.

    Infinite and NaN values (a diverged model) are clipped to the largest finite number: they rank last, as equals.
    """
    if len(log_ratio) != len(retain_log_ratio) or len(log_ratio) == 0:
        sizes = f"{len(log_ratio)} and {len(retain_log_ratio)}"
        raise ValueError(f"forget quality compares the same questions: got samples of {sizes}")
    largest = np.finfo(np.float64).max
    samples = [np.nan_to_num(s, nan=largest, posinf=largest, neginf=-largest) for s in (log_ratio, retain_log_ratio)]
    with warnings.catch_warnings():
        # Where the exact p rounds to more than 1, scipy takes the asymptotic one, which is 1 up to 1e-4, and says so.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        found = ks_2samp(*samples, alternative="two-sided", method="auto")
    p_value, statistic = float(found.pvalue), float(found.statistic)
    if p_value > SMALLEST_NORMAL:
        return ForgetQuality(p_value, math.log10(p_value), statistic)
    return ForgetQuality(p_value, log10_ks_p_value(len(log_ratio), round(statistic * len(log_ratio))), statistic)


def log10_ks_p_value(n: int, steps: int) -> float:
    """log10 P(D >= steps/n) for two samples of n each, exactly; at most 0."""
    if steps == 0:
        return 0.0
    reached = n - steps * np.arange(1, n // steps + 1)
    log_terms = _log_binomial(n, reached)
    signs = np.where(np.arange(len(reached)) % 2 == 0, 1.0, -1.0)
    # The first term is the largest: relative to it the alternating sum neither under- nor overflows.
    rest = np.sum(signs * np.exp(log_terms - log_terms[0]))
    log_p = np.log(2) + log_terms[0] - _log_binomial(n, np.array([n]))[0] + np.log(rest)
    return min(0.0, float(log_p / np.log(10)))


def _log_binomial(n: int, k: np.ndarray) -> Floats:
    """log C(2n, k)."""
    return np.asarray(gammaln(2 * n + 1) - gammaln(k + 1) - gammaln(2 * n - k + 1))
