"""Model utility (TOFU, arXiv:2401.06121, section 2.2.2)."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import hmean


def model_utility(terms: Mapping[str, float]) -> float:
    """Harmonic mean of the terms, in [0, 1]; the paper's are probability, ROUGE-L recall and truth ratio of the
    retain set, real authors and world facts (nine).

    0 if any term is 0, or NaN: what a model cannot do at all is worth nothing. Other subsets are the caller's to
    state: a model that was trained from scratch on the retain set alone has three terms.
    """
    if not terms:
        raise ValueError("model utility needs at least one term")
    for name, value in terms.items():
        if value < 0 or math.isinf(value):
            raise ValueError(f"model utility: term '{name}' is {value}; terms lie in [0, 1]")
    if any(math.isnan(value) or value == 0 for value in terms.values()):
        return 0.0
    with np.errstate(over="ignore"):  # 1/p of a nearly impossible answer: the mean is then 0, as it should be
        return float(hmean(list(terms.values())))
