"""Membership inference by a tuned support vector machine on the loss: the MIA column of DUCK (arXiv:2312.02052).

Members are D_f's training images, non-members unseen images (class removal: test images of the class; random samples:
the test set). A model that has forgotten treats both alike: the attack then does no better than a coin.
"""

import warnings

import numpy as np

from shared.errors import UserError
from shared.metrics.membership import Probabilities

GRID = {"C": [1, 5, 10, 100], "gamma": [10, 1, 0.1]}
FOLDS = 3
MAX_ITERATIONS = 4000
# fewest samples a side: each of the folds trains and validates on both sides
FEWEST = 10


def losses(p: Probabilities) -> np.ndarray:
    """Cross-entropy of every image (N,) in nats, at most 69 (a probability of 1e-30)."""
    return -np.log(np.maximum(p.values[np.arange(len(p)), p.labels].astype(np.float64), 1e-30))


def svc_grid_f1(
    members: np.ndarray, non_members: np.ndarray, *, train_fraction: float = 0.7, repeats: int = 10, seed: int = 0
) -> float:
    """Micro-averaged F1 of the attack in %; 50 is a coin.

    members (N,), non_members (M,): loss of each sample. Both are cut to the shorter length (random choice), split
    into a part to train on and a part to judge by (stratified), standardised; C and gamma by 3-fold search. Mean of
    `repeats` draws. Micro-F1 over both classes is accuracy. Raises UserError for fewer than 10 samples of a side or
    a loss that is not finite.
    """
    inside, outside = (np.asarray(side, np.float64).ravel() for side in (members, non_members))
    num_each = min(len(inside), len(outside))
    if num_each < FEWEST:
        counts = f"{len(inside)} members and {len(outside)} non-members"
        raise UserError(f"membership attack svc_grid: needs at least {FEWEST} of each, got {counts}")
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise UserError("membership attack svc_grid: a loss is not finite: the run diverged; lower its learning rate")
    random = np.random.RandomState(seed)
    return float(np.mean([_one_draw(inside, outside, num_each, train_fraction, random) for _ in range(repeats)]))


def _one_draw(
    members: np.ndarray,
    non_members: np.ndarray,
    num_each: int,
    train_fraction: float,
    random: np.random.RandomState,
) -> float:
    # a second of imports that only rows with this attack need
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, train_test_split
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    chosen = [random.choice(side, num_each, replace=False) for side in (members, non_members)]
    features, labels = np.concatenate(chosen)[:, None], np.repeat([1, 0], num_each)
    x, x_test, y, y_test = train_test_split(
        features, labels, train_size=train_fraction, stratify=labels, random_state=random
    )
    scaler = StandardScaler().fit(x)
    search = GridSearchCV(SVC(class_weight="balanced", max_iter=MAX_ITERATIONS), GRID, cv=FOLDS)
    with warnings.catch_warnings():
        # the cap on iterations belongs to the protocol: losses of a model that has forgotten cannot be separated
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(scaler.transform(x), y)
    return 100 * float(f1_score(y_test, search.predict(scaler.transform(x_test)), average="micro"))
