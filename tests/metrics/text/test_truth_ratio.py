"""Truth ratio and probability: identities, limits after divergence, OpenUnlearning's epsilon against plain formulas."""

import warnings

import numpy as np
import pytest

from shared.errors import ConfigError
from shared.metrics.text.probability import answer_probability, normalised_probability
from shared.metrics.text.truth_ratio import (
    forget_aggregate,
    log_truth_ratio,
    retain_aggregate,
    true_share,
    truth_ratio,
)

INF, NAN = np.inf, np.nan
KINDS = ("geometric", "arithmetic")
RNG = np.random.default_rng(0)
TRUE, WRONG = RNG.gamma(2, 1, 50), RNG.gamma(3, 1, (50, 5))


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def plain_ratio(kind, epsilon=0.0):
    """The definitions, with probabilities instead of logarithms."""
    wrong = np.exp(-WRONG.mean(1)) if kind == "geometric" else np.exp(-WRONG).mean(1)
    return wrong / (np.exp(-TRUE) + epsilon), np.exp(-TRUE), wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-10, 0.1])
def test_equals_the_plain_formulas(kind, epsilon):
    ratio, true, wrong = plain_ratio(kind, epsilon)
    log_ratio = log_truth_ratio(TRUE, WRONG, kind, epsilon)
    np.testing.assert_allclose(truth_ratio(log_ratio), ratio, rtol=1e-12)
    expected = np.minimum(ratio, 1 / (ratio + epsilon)).mean()
    assert forget_aggregate(log_ratio, epsilon) == pytest.approx(expected, rel=1e-12)
    assert retain_aggregate(log_ratio) == pytest.approx(np.maximum(0, 1 - ratio).mean(), rel=1e-12)
    assert true_share(TRUE, WRONG, kind, epsilon) == pytest.approx((true / (true + wrong + epsilon)).mean(), rel=1e-12)


def test_kinds_agree_for_one_wrong_answer_and_arithmetic_is_never_smaller():
    one = WRONG[:, :1]
    np.testing.assert_allclose(log_truth_ratio(TRUE, one), log_truth_ratio(TRUE, one, "arithmetic"), atol=1e-12)
    assert (log_truth_ratio(TRUE, WRONG, "arithmetic") >= log_truth_ratio(TRUE, WRONG)).all()  # Jensen


@pytest.mark.parametrize("kind", KINDS)
def test_equal_losses_give_a_ratio_of_one(kind):
    log_ratio = log_truth_ratio(np.full(4, 900.0), np.full((4, 5), 900.0), kind)
    np.testing.assert_allclose(log_ratio, 0, atol=1e-12)
    assert forget_aggregate(log_ratio) == pytest.approx(1)
    assert retain_aggregate(log_ratio) == pytest.approx(0, abs=1e-12)
    assert true_share(np.full(4, 900.0), np.full((4, 5), 900.0), kind) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_all_losses_changes_nothing_even_where_exp_underflows(kind):
    # exp(-2000) is 0: after gradient ascent a quotient of probabilities would be 0/0.
    np.testing.assert_allclose(
        log_truth_ratio(TRUE + 2000, WRONG + 2000, kind), log_truth_ratio(TRUE, WRONG, kind), atol=1e-9
    )
    shifted = normalised_probability(TRUE + 2000, WRONG + 2000)
    np.testing.assert_allclose(shifted, normalised_probability(TRUE, WRONG), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("true", "wrong", "log_ratio"),
    [
        (INF, 1.0, INF),
        (1.0, INF, -INF),
        (INF, INF, INF),
        (NAN, 1.0, INF),
        (1.0, NAN, INF),
        (NAN, NAN, INF),
        (5000.0, 0.0, 5000.0),
        (0.0, 5000.0, -5000.0),
    ],
)
def test_limits(kind, true, wrong, log_ratio):
    found = log_truth_ratio(np.array([true]), np.full((1, 3), wrong), kind)
    assert found[0] == pytest.approx(log_ratio)
    assert np.isfinite(truth_ratio(found)).all()
    assert forget_aggregate(found) == 0
    assert retain_aggregate(found) == (1 if log_ratio < 0 else 0)


def test_one_infinite_wrong_answer_ends_the_geometric_mean_and_not_the_arithmetic():
    wrong = np.array([[1.0, INF]])
    assert log_truth_ratio(np.array([1.0]), wrong)[0] == -INF
    assert log_truth_ratio(np.array([1.0]), wrong, "arithmetic")[0] == pytest.approx(-np.log(2))


def test_epsilon_makes_a_collapsed_model_look_truthful():
    # OpenUnlearning's convention, kept for its own logs: with all probabilities 0 the ratio is 0 / 1e-10.
    collapsed = np.full(3, 800.0), np.full((3, 5), 800.0)
    assert retain_aggregate(log_truth_ratio(*collapsed, epsilon=1e-10)) == pytest.approx(1)
    assert retain_aggregate(log_truth_ratio(*collapsed)) == pytest.approx(0)


def test_true_share_of_undefined_rows_is_zero():
    assert true_share(np.array([NAN, INF]), np.array([[1.0], [INF]])) == 0


def test_unknown_kind_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'geometri' does not exist \(did you mean 'geometric'\?\)"):
        log_truth_ratio(TRUE, WRONG, "geometri")


def test_probability():
    np.testing.assert_allclose(answer_probability(np.array([0.0, 1.0, 800.0, INF, NAN])), [1, np.exp(-1), 0, 0, 0])


@pytest.mark.parametrize("epsilon", [0.0, 1e-10, 0.1])
def test_normalised_probability(epsilon):
    p, wrong = np.exp(-TRUE), np.exp(-WRONG).sum(1)
    np.testing.assert_allclose(normalised_probability(TRUE, WRONG, epsilon), p / (p + wrong + epsilon), rtol=1e-12)


def test_normalised_probability_limits():
    true = np.array([INF, 1.0, INF, NAN, 1.0])
    wrong = np.array([[1.0, 1.0], [INF, INF], [INF, INF], [1.0, 1.0], [NAN, 1.0]])
    np.testing.assert_array_equal(normalised_probability(true, wrong), [0, 1, 0, 0, 0])
