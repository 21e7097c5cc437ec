"""Extraction strength, exact memorisation, membership scores: against direct searches and definitions."""

import zlib
from itertools import product

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.text.membership import (
    membership_auc,
    min_k_plus_plus_score,
    min_k_score,
    privleak,
    zlib_scores,
)
from shared.metrics.text.memorization import exact_memorization, extraction_strength

EOS = [True]


def search(hits):
    """The definition, by search: the first k from which all predictions are right; the last k if there is none."""
    n = len(hits)
    k = next((k for k in range(n) if all(hits[k:])), n - 1)
    return 1 - k / n


def test_extraction_strength_equals_the_search_for_all_short_sequences():
    for length in range(1, 7):
        for hits in product([False, True], repeat=length):
            assert extraction_strength(np.array([*hits, *EOS])) == pytest.approx(search(hits)), hits


@pytest.mark.parametrize(
    ("hits", "strength", "memorised"),
    [
        ([1, 1, 1, 1], 1.0, 1.0),
        ([0, 0, 1, 1], 0.5, 0.5),
        ([1, 1, 1, 0], 0.25, 0.75),  # nothing matches to the end, and the search stops at the last label: 1/n, not 0
        ([0, 0, 0, 0], 0.25, 0.0),
    ],
)
def test_known_values(hits, strength, memorised):
    for end in (True, False):  # the last label does not count
        assert extraction_strength(np.array([*hits, end])) == strength
        assert exact_memorization(np.array([*hits, end])) == memorised


def test_answers_without_labels():
    for hits in (np.array([], bool), np.array([True])):
        assert extraction_strength(hits) == 0
        assert np.isnan(exact_memorization(hits))


def test_min_k_takes_the_lowest_tokens_and_leaves_the_last_label_out():
    log_probs = np.array([-1.0, -9.0, -2.0, -8.0, -3.0, -99.0])
    assert min_k_score(log_probs) == pytest.approx(8.5)  # int(0.4 * 5) = 2 lowest
    assert min_k_score(log_probs, share=0.01) == pytest.approx(9)  # at least one
    assert min_k_score(log_probs, share=1.0) == pytest.approx(23 / 5)
    assert min_k_score(np.array([-5.0])) == 0


def test_min_k_plus_plus_is_min_k_of_standardised_log_probs():
    rng = np.random.default_rng(0)
    log_probs, mean, variance = rng.normal(-3, 1, 11), rng.normal(-4, 1, 11), rng.gamma(2, 1, 11)
    expected = min_k_score((log_probs - mean) / np.sqrt(variance))
    assert min_k_plus_plus_score(log_probs, mean, variance) == pytest.approx(expected)
    assert min_k_plus_plus_score(log_probs, np.zeros(11), np.ones(11)) == pytest.approx(min_k_score(log_probs))
    # A one-hot prediction has variance 0: clamped to 1e-6.
    assert min_k_plus_plus_score(np.array([-1.0, 0.0]), np.zeros(2), np.zeros(2)) == pytest.approx(1000)


def test_min_k_plus_plus_of_a_uniform_prediction_is_zero():
    log_probs = np.full(6, -np.log(10))
    assert min_k_plus_plus_score(log_probs, log_probs, np.zeros(6)) == 0


def test_zlib_scores():
    answers = ["a" * 100, "Basil Mahfouz Al-Kuwaiti é"]
    sizes = [len(zlib.compress(answer.encode("utf-8"))) for answer in answers]
    np.testing.assert_allclose(zlib_scores(np.array([3.0, 5.0]), answers), [3 / sizes[0], 5 / sizes[1]])


def test_auc_is_one_for_members_half_for_equals_and_counts_pairs():
    rng = np.random.default_rng(0)
    forget, holdout = rng.normal(0, 1, 30), rng.normal(1, 1, 20)
    assert membership_auc(np.zeros(5), np.ones(7)) == 1
    assert membership_auc(np.ones(5), np.zeros(7)) == 0
    assert membership_auc(forget, forget) == pytest.approx(0.5)
    pairs = (forget[:, None] < holdout[None]).mean()
    assert membership_auc(forget, holdout) == pytest.approx(pairs)
    assert membership_auc(holdout, forget) == pytest.approx(1 - pairs)


def test_auc_of_a_diverged_model():
    assert membership_auc(np.full(3, np.nan), np.zeros(3)) == 0
    assert membership_auc(np.full(3, np.inf), np.full(3, np.nan)) == 0.5
    with pytest.raises(DataError, match="0 forget and 2 holdout rows"):
        membership_auc(np.array([]), np.zeros(2))


def test_privleak():
    assert privleak(0.5) == pytest.approx(0)
    assert privleak(1.0) == pytest.approx(-100)
    assert privleak(0.38, 0.38) == pytest.approx(0)
    assert privleak(0.0) == pytest.approx(100)
    # OpenUnlearning, Llama-3.2-1B retain90, against the default reference: published AUC and privleak.
    assert privleak(0.38261249999999997) == pytest.approx(23.477499995304495, rel=1e-12)
