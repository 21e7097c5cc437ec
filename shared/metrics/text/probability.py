"""Probability of an answer (TOFU, arXiv:2401.06121, section 2.2): from mean losses, in log space.

`avg_loss` is the mean negative log-likelihood of an answer's labels in nats (the end-of-sequence token included), so
that exp(-avg_loss) = P(a|q)^(1/|a|). A model that has diverged has infinite or undefined losses: both mean that the
answer has probability 0.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]

# OpenUnlearning adds this to its denominators, the released code of the paper nothing.
OPEN_UNLEARNING_EPSILON = 1e-10


def answer_probability(avg_loss: Floats) -> Floats:
    """exp(-avg_loss) of every row (N,), in [0, 1]; 0 where the loss is NaN or infinite."""
    losses = np.asarray(avg_loss, np.float64)
    return np.exp(-np.where(np.isnan(losses), np.inf, losses))


def normalised_probability(avg_loss: Floats, perturbed_loss: Floats, epsilon: float = 0.0) -> Floats:
    """p / (p + sum of the wrong answers' probabilities + epsilon) (N,), in [0, 1], for real authors and world facts.

    avg_loss: (N,) of the true answers; perturbed_loss: (N, P) of the wrong ones. All p are length-normalised: the
    paper's formula has raw probabilities, the released code these. Where every loss is infinite, or any is NaN, the
    quotient is undefined and the value 0: such a model does not know the answer.
    """
    losses = np.concatenate([np.asarray(avg_loss, np.float64)[:, None], perturbed_loss], axis=1)
    with np.errstate(invalid="ignore"):
        log_share = -losses[:, 0] - np.logaddexp(logsumexp(-losses, axis=1), log_epsilon(epsilon))
    return np.exp(np.where(np.isnan(log_share), -np.inf, log_share))


def log_epsilon(epsilon: float) -> float:
    """log(epsilon), minus infinity for 0."""
    return float(np.log(epsilon)) if epsilon > 0 else -np.inf
