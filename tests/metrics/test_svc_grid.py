"""The tuned attack on losses: a coin on equal sides, certain on separate ones, and its two edges."""

import warnings

import numpy as np
import pytest

from shared.errors import UserError
from shared.metrics.membership import Probabilities
from shared.metrics.svc_grid import losses, svc_grid_f1


def drawn(num, scale, seed):
    return np.random.RandomState(seed).exponential(scale, num)


def test_equal_distributions_are_a_coin():
    found = [svc_grid_f1(drawn(120, 1, 2 * seed), drawn(120, 1, 2 * seed + 1), repeats=3) for seed in range(3)]
    assert 40 < np.mean(found) < 60


def test_separate_sides_are_told_apart_and_the_direction_does_not_matter():
    low, high = drawn(40, 0.01, 0), 3 + drawn(60, 1, 1)
    assert svc_grid_f1(low, high, repeats=2) == 100
    assert svc_grid_f1(high, low, repeats=2) == 100


def test_a_threshold_bounds_the_attack_on_overlapping_sides():
    """Two unit normals, two apart: the best rule is right with Phi(1) = 84.1 %."""
    random = np.random.RandomState(0)
    assert svc_grid_f1(random.randn(300), 2 + random.randn(300), repeats=3) == pytest.approx(84.1, abs=4)


def test_standardised_losses_make_scale_and_shift_of_no_account():
    low, high = drawn(50, 1, 0), drawn(50, 2, 1)
    assert svc_grid_f1(low, high, repeats=2) == svc_grid_f1(8 + 4 * low, 8 + 4 * high, repeats=2)


def test_the_longer_side_is_cut_so_that_a_constant_answer_scores_half():
    same = np.zeros(30)
    assert svc_grid_f1(same, np.zeros(300), repeats=2) == 50


def test_a_seed_is_a_value_and_no_warning_escapes():
    low, high = drawn(60, 1, 0), drawn(60, 1.3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = [svc_grid_f1(low, high, repeats=1, seed=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1]


def test_losses_are_cross_entropies_and_stay_finite():
    p = Probabilities(np.array([[0.5, 0.5], [1.0, 0.0]], np.float32), np.array([0, 1]))
    np.testing.assert_allclose(losses(p), [np.log(2), -np.log(1e-30)], rtol=1e-6)


def test_bad_input_is_one_clear_line():
    with pytest.raises(UserError, match="at least 10 of each, got 30 members and 9 non-members"):
        svc_grid_f1(np.zeros(30), np.zeros(9))
    with pytest.raises(UserError, match="not finite: the run diverged"):
        svc_grid_f1(np.zeros(30), np.full(30, np.nan))
