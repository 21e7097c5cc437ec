"""Likelihood-ratio membership inference (Carlini et al., arXiv:2112.03570) in the one-sided form of DUCK's code.

Shadow models tell how confident a network is on a sample that it need not have seen. A sample on which the judged
model is more confident than they are looks like a member.
"""

import numpy as np

from shared.errors import UserError

# Keeps the logit of a confidence of 0 or 1 finite: between log 1e-7 and log 1e7, about ± 16.
EDGE = 1e-7


def logit_confidence(confidences: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of true-label probabilities in [0, 1], any shape: close to normal over models, as p is not."""
    p = np.asarray(confidences, np.float64)
    return np.asarray(np.log(EDGE + p / (1 - p + EDGE)))


def lira_scores(confidences: np.ndarray, shadow_confidences: np.ndarray) -> np.ndarray:
    """(x - mu) / sigma of every sample (N,), x its logit, mu and sigma those of its shadow logits.

    confidences (N,): of the judged model; shadow_confidences (K, N). DUCK's score is the normal distribution function
    of it, which orders samples alike, but is 1 to double precision from 8.3 on. Raises UserError for fewer than two
    shadow models or shapes that do not fit.
    """
    found, shadows = logit_confidence(confidences), logit_confidence(shadow_confidences)
    if shadows.ndim != 2 or found.shape != shadows.shape[1:]:
        raise UserError(f"membership attack lira: {found.shape} confidences but {shadows.shape} of shadow models")
    if len(shadows) < 2:
        raise UserError(f"membership attack lira: needs at least 2 shadow models for a spread, got {len(shadows)}")
    if not (np.isfinite(found).all() and np.isfinite(shadows).all()):
        raise UserError("membership attack lira: a confidence is not finite: the run diverged; lower its learning rate")
    # Shadow models that agree to the last bit have no spread: the floor keeps the sign of the difference.
    return np.asarray((found - shadows.mean(0)) / np.maximum(shadows.std(0), EDGE))


def lira_auc(
    members: np.ndarray, shadow_members: np.ndarray, non_members: np.ndarray, shadow_non_members: np.ndarray
) -> float:
    """Area under the attack's ROC curve in %; 50 is a coin.

    members (N,), non_members (M,): the judged model's true-label confidences on D_f and on unseen images;
    shadow_members (K, N), shadow_non_members (K, M): the shadow models' on the same images.
    """
    from sklearn.metrics import roc_auc_score  # a second of imports that only rows with this attack need

    scores = [lira_scores(members, shadow_members), lira_scores(non_members, shadow_non_members)]
    if not all(len(side) for side in scores):
        counts = f"{len(scores[0])} members and {len(scores[1])} non-members"
        raise UserError(f"membership attack lira: needs at least one of each, got {counts}")
    return 100 * float(roc_auc_score(np.repeat([1, 0], [len(side) for side in scores]), np.concatenate(scores)))
