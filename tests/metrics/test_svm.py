"""The low-rank SVM: optimality conditions first, then libsvm as the independent implementation."""

import numpy as np
import pytest
from sklearn.svm import SVC

from shared.metrics import membership, svm


def confidences(num, margin, spread, wrong, seed):
    """Confidences of a trained net, float32: most near 1, a share `wrong` near 0."""
    random = np.random.RandomState(seed)
    logits = random.normal(margin, spread, num)
    failed = random.rand(num) < wrong
    logits[failed] = random.normal(-2, 3, failed.sum())
    return (1 / (1 + np.exp(-logits))).astype(np.float32)[:, None]


CASES = {
    "typical": ((9, 2, 0.0), (7.5, 3, 0.05)),
    "overfitted": ((14, 2, 0.0), (9, 4, 0.08)),
    "no_difference": ((4, 2, 0.0), (4, 2, 0.0)),
    "inverted": ((5, 2, 0.1), (9, 2, 0.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_solution_is_optimal(case):
    """Kuhn-Tucker: y f >= 1 at a = 0, <= 1 at a = C, = 1 between; sum of y a = 0."""
    members, others = (confidences(300, *CASES[case][i], seed=i) for i in range(2))
    points = np.concatenate([members, others]).astype(np.float64)
    signs = np.r_[np.ones(300), -np.ones(300)]
    points, index = np.unique(np.c_[points, signs], axis=0, return_index=True)
    points, signs = points[:, :1], signs[index]
    bounds = np.full(len(points), 3.0)
    machine = svm.fit(points, signs, bounds, 1.0)
    assert machine is not None
    alphas = np.zeros(len(points))
    for point, coefficient in zip(machine.points, machine.coefficients, strict=True):
        alphas[(points[:, 0] == point[0]) & (signs == np.sign(coefficient))] = abs(coefficient)
    margins = signs * machine.decide(points)
    assert abs(signs @ alphas) < 1e-8 * bounds.sum()
    assert (alphas <= bounds + 1e-12).all()
    assert (margins[alphas == 0] > 1 - 1e-6).all()
    assert (margins[alphas == bounds] < 1 + 1e-6).all()
    free = (alphas > 0) & (alphas < bounds)
    np.testing.assert_allclose(margins[free], 1, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("feature", ["confidence", "entropy"])
def test_same_predictions_as_sklearn(case, feature):
    """Every prediction equals SVC's at a tight tolerance; at its default one wherever that says
    anything."""
    sides = [confidences(800, *CASES[case][i], seed=i + 10) for i in range(2)]
    queries = confidences(500, 8, 3, 0.03, seed=20)
    if feature == "entropy":
        *sides, queries = (-(p * np.log(np.maximum(p, 1e-30))) for p in (*sides, queries))
    points = np.concatenate(sides)
    labels = np.r_[np.ones(800), np.zeros(800)]
    ours = membership.attack(*sides, queries)
    exact = SVC(C=3, gamma="auto", tol=1e-9).fit(points, labels)
    np.testing.assert_array_equal(ours, exact.predict(queries) > 0)
    default = SVC(C=3, gamma="auto").fit(points, labels)
    clear = np.abs(exact.decision_function(queries)) > 0.02
    np.testing.assert_array_equal(ours[clear], default.predict(queries)[clear] > 0)


def test_merging_equal_points_changes_nothing():
    random = np.random.RandomState(0)
    members, others = random.choice(9, (200, 1)) / 8, random.choice(6, (200, 1)) / 8
    queries = np.linspace(0, 1, 57)[:, None]
    machine = SVC(C=3, gamma="auto", tol=1e-9)
    machine.fit(np.concatenate([members, others]), np.r_[np.ones(200), np.zeros(200)])
    ours = membership.attack(members, others, queries)
    np.testing.assert_array_equal(ours, machine.predict(queries) > 0)


def test_many_copies_of_few_points():
    """Bounds of tens of thousands: the solver must not lose the slack to rounding."""
    right, wrong = np.ones((1, 1)), np.zeros((1, 1))
    members = np.repeat(right, 10_000, 0)
    others = np.concatenate([np.repeat(right, 9_400, 0), np.repeat(wrong, 600, 0)])
    found = membership.attack(members, others, np.concatenate([right, wrong]))
    np.testing.assert_array_equal(found, [True, False])


def test_high_rank_falls_back_to_libsvm(monkeypatch):
    sides = [confidences(300, *CASES["typical"][i], seed=i) for i in range(2)]
    queries = confidences(200, 8, 3, 0.03, seed=5)
    low_rank = membership.attack(*sides, queries)
    monkeypatch.setattr(svm, "MAX_RANK", 3)
    np.testing.assert_array_equal(membership.attack(*sides, queries), low_rank)


def test_pivoted_cholesky_reproduces_the_kernel():
    points = np.random.RandomState(0).rand(80, 2)
    factor = svm.pivoted_cholesky(points, 0.5)
    assert factor is not None
    np.testing.assert_allclose(factor @ factor.T, svm.rbf(points, points, 0.5), atol=1e-10)
