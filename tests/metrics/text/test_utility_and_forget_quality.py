"""Harmonic mean with zeros; KS test: floors, self-comparison, exact log p against scipy's p and a permutation count."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from shared.metrics.text.forget_quality import forget_quality, log10_ks_p_value
from shared.metrics.text.utility import model_utility


def test_utility_of_equal_terms_is_the_term():
    assert model_utility({str(i): 0.3 for i in range(9)}) == pytest.approx(0.3)
    assert model_utility({"a": 0.25, "b": 1.0}) == pytest.approx(0.4)
    assert model_utility({"retain": 0.7}) == pytest.approx(0.7)


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_utility_is_zero_if_a_term_is_zero_or_nan(bad):
    assert model_utility({"a": 0.9, "b": bad}) == 0
    assert model_utility({"a": 0.9, "b": 1e-320}) == pytest.approx(0, abs=1e-300)


def test_utility_refuses_what_no_term_can_be():
    with pytest.raises(ValueError, match=r"'b' is -0\.1"):
        model_utility({"a": 0.9, "b": -0.1})
    with pytest.raises(ValueError, match="at least one"):
        model_utility({})


@pytest.mark.parametrize(
    ("n", "floor"),
    [(40, 1.8603403656e-23), (200, 1.9426434495e-119), (300, 1.4802978792e-179), (400, 1.0635896770e-239)],
)
def test_complete_separation_is_the_floor(n, floor):
    found = forget_quality(np.arange(n) * 1.0, np.arange(n) + 1e6)
    assert found.statistic == 1
    assert found.p_value == pytest.approx(floor, rel=1e-9)
    assert 10**found.log10_p == pytest.approx(floor, rel=1e-9)


def test_log10_p_stays_finite_where_p_underflows():
    n = 2000
    found = forget_quality(np.arange(n) * 1.0, np.arange(n) + 1e6)
    assert found.p_value == 0
    # Stirling: log10(2 / C(2n, n)) = log10(2) - 2n log10(2) + log10(pi n) / 2, up to 1 / (8n ln 10).
    assert found.log10_p == pytest.approx(np.log10(2) - 2 * n * np.log10(2) + np.log10(np.pi * n) / 2, abs=1e-4)


def test_self_comparison_is_one_and_order_of_rows_does_not_matter():
    sample = np.random.default_rng(0).normal(size=50)
    assert forget_quality(sample, sample) == (1.0, 0.0, 0.0)
    assert forget_quality(sample, sample[::-1]) == (1.0, 0.0, 0.0)


@pytest.mark.filterwarnings("ignore:ks_2samp")
@pytest.mark.parametrize("n", [1, 2, 7, 32, 300])
def test_log_p_equals_scipys_exact_p_for_every_statistic(n):
    for steps in {0, 1, 2 % n, n // 5, n // 3, n // 2, n - 1, n}:
        # n - steps equal values, then complete separation: D is steps / n.
        a = np.concatenate([np.arange(n - steps), 1000 + np.arange(steps)])
        b = np.concatenate([np.arange(n - steps), 5000 + np.arange(steps)])
        if steps == 1 and n > 2:  # scipy's exact p rounds to more than 1, and it gives up
            assert log10_ks_p_value(n, steps) == pytest.approx(0, abs=1e-3)
            assert forget_quality(a, b).p_value == pytest.approx(1, abs=1e-3)
            continue
        p = ks_2samp(a, b).pvalue
        assert 10 ** log10_ks_p_value(n, steps) == pytest.approx(p, rel=1e-8, abs=1e-300)


def test_log_p_counts_the_permutations():
    n = 4
    statistics = []
    for chosen in combinations(range(2 * n), n):
        steps = np.cumsum(np.where(np.isin(np.arange(2 * n), chosen), 1, -1))
        statistics.append(int(np.abs(steps).max()))
    for steps in range(1, n + 1):
        share = np.mean([s >= steps for s in statistics])
        assert 10 ** log10_ks_p_value(n, steps) == pytest.approx(share, rel=1e-12)


def test_monotone_maps_of_the_ratio_keep_p():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 80), rng.normal(0.6, 1, 80)
    found = forget_quality(a, b)
    assert forget_quality(np.exp(a), np.exp(b)) == found
    assert forget_quality(np.exp(-a), np.exp(-b)).p_value == found.p_value  # 1/R, as OpenUnlearning takes it
    assert forget_quality(b, a) == found


def test_diverged_models_rank_last_and_do_not_crash():
    good = np.random.default_rng(2).normal(size=40)
    for bad in (np.inf, np.nan):
        found = forget_quality(np.full(40, bad), good)
        assert found.p_value == pytest.approx(1.8603403656e-23, rel=1e-9)
    assert forget_quality(np.full(40, -np.inf), good).statistic == 1


def test_other_sample_sizes_are_refused():
    with pytest.raises(ValueError, match="same questions: got samples of 3 and 4"):
        forget_quality(np.zeros(3), np.zeros(4))
