"""Membership inference by a support vector machine: the MIA column of the unlearning tables (salun
SalUn, arXiv:2310.12508).

The attack is trained on the *unlearned* model: members are the first items of D_r in data-set
order, non-members the unseen images, equally many of both. It is `SVC(C=3, kernel="rbf",
gamma="auto")` without scaling, gamma being one over the number of features. The value is the share
of D_f it calls non-member: to be compared with Retrain's, which is not 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import ConfigError, UserError, nearest
from shared.metrics import svm
from shared.metrics.svm import Array

COST = 3.0


@dataclass(frozen=True)
class Probabilities:
    """What a model says of a data set: softmax outputs (N, C) and true labels (N,)."""

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, num_items: int) -> "Probabilities":
        """The first `num_items` in data-set order."""
        return Probabilities(self.values[:num_items], self.labels[:num_items])


def confidence(p: Probabilities) -> np.ndarray:
    """Probability of the true label (N, 1)."""
    return p.values[np.arange(len(p)), p.labels][:, None]


def correctness(p: Probabilities) -> np.ndarray:
    """1 where the prediction is right (N, 1)."""
    return (p.values.argmax(1) == p.labels).astype(np.float64)[:, None]


def entropy(p: Probabilities) -> np.ndarray:
    """Entropy of the prediction in nats (N, 1)."""
    return -(p.values * _log(p.values)).sum(1)[:, None]


def modified_entropy(p: Probabilities) -> np.ndarray:
    """-(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i) (N, 1); Song and Mittal, USENIX
    Security 2021.

    The released code fills log(1 - p) with log(p) and changes whole columns; this is the
    definition.
    """
    true = confidence(p)
    others = p.values.copy()
    others[np.arange(len(p)), p.labels] = 0
    return -(1 - true) * _log(true) - (others * _log(1 - others)).sum(1)[:, None]


def probability(p: Probabilities) -> np.ndarray:
    """The whole probability vector (N, C)."""
    return p.values


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, 1e-30))


FEATURES: dict[str, Callable[[Probabilities], np.ndarray]] = {
    "confidence": confidence,
    "correctness": correctness,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
    "probability": probability,
}


def membership_attack(
    retain: Probabilities,
    unseen: Probabilities,
    forget: Probabilities,
    features: Sequence[str] = ("confidence",),
) -> dict[str, float]:
    """Share of D_f (in %) that the attack calls non-member, for each feature.

    retain: D_r in data-set order; unseen: the test images. Both are cut to the shorter length: the
    released code takes len(test) of D_r and fails when D_r has fewer.
    """
    num_each = min(len(retain), len(unseen))
    if num_each == 0 or len(forget) == 0:
        counts = f"{len(retain)} retained, {len(unseen)} unseen and {len(forget)} forgotten images"
        raise UserError(f"membership attack: needs at least one image of each kind, got {counts}")
    values = {}
    for name in features:
        if name not in FEATURES:
            raise ConfigError(f"membership feature '{name}' does not exist{nearest(name, list(FEATURES))}")
        of = FEATURES[name]
        members = attack(of(retain.first(num_each)), of(unseen.first(num_each)), of(forget))
        values[name] = 100 * (1 - float(members.mean()))
    return values


def membership_privacy(retain: Probabilities, unseen: Probabilities, num_train: int = 5000) -> float:
    """MIA-Privacy (unlearn_sparse, arXiv:2304.04934, appendix) in %: the attack on the confidence, trained on the first
    `num_train` of D_r and of the unseen images (half of the smaller side if it is short), and its balanced accuracy on
    the rest: 50 tells nothing."""
    num = min(num_train, len(retain) // 2, len(unseen) // 2)
    if num == 0:
        raise UserError(f"membership privacy: {len(retain)} retained and {len(unseen)} unseen images are too few")
    members, others = confidence(retain), confidence(unseen)
    called = attack(members[:num], others[:num], np.concatenate([members[num:], others[num:]]))
    inside, outside = called[: len(members) - num], called[len(members) - num :]
    return 50 * float(inside.mean() + 1 - outside.mean())


def attack(members: np.ndarray, non_members: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Train on (N, D) and (M, D), and say of each query (Q, D) whether it looks like a member: (Q,)
    bool.

    Same answers as `SVC(C=3, gamma="auto")` up to libsvm's stopping tolerance; equal queries are
    decided once.
    """
    gamma = 1 / members.shape[1]
    distinct, position = np.unique(np.asarray(queries, np.float64), axis=0, return_inverse=True)
    sides = [np.unique(np.asarray(side, np.float64), axis=0, return_counts=True) for side in (members, non_members)]
    points = np.concatenate([side[0] for side in sides])
    signs = np.concatenate([np.full(len(sides[0][0]), 1.0), np.full(len(sides[1][0]), -1.0)])
    counts = np.concatenate([side[1] for side in sides]).astype(np.float64)
    machine = svm.fit(points, signs, COST * counts, gamma)
    values = machine.decide(distinct) if machine else _libsvm(points, signs, counts, gamma, distinct)
    return np.asarray((values > 0)[position.ravel()])


def _libsvm(points: Array, signs: Array, counts: Array, gamma: float, queries: Array) -> Array:
    from sklearn.svm import SVC

    machine = SVC(C=COST, gamma=gamma, cache_size=1000).fit(points, signs, sample_weight=counts)
    return np.asarray(machine.decision_function(queries))
