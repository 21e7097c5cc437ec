"""ROUGE recall: limits, stemming, word order, against a longest common subsequence of our own."""

import numpy as np
import pytest

from shared.metrics.text.rouge import rouge


def longest_common(a, b):
    lengths = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            lengths[i + 1, j + 1] = lengths[i, j] + 1 if x == y else max(lengths[i, j + 1], lengths[i + 1, j])
    return lengths[-1, -1]


def test_limits():
    found = rouge(["the red house", "", "green", "Running, houses!"], ["the red house", "red", "red", "runs house"])
    np.testing.assert_allclose(found.rougeL_recall, [1, 0, 0, 1])  # the stemmer makes the last pair equal
    np.testing.assert_allclose(found.rouge1_recall, [1, 0, 0, 1])


def test_longer_answers_keep_the_recall_and_word_order_counts_for_rouge_l_only():
    found = rouge(["well the red house stands there", "house red the"], ["the red house", "the red house"])
    np.testing.assert_allclose(found.rouge1_recall, [1, 1])
    np.testing.assert_allclose(found.rougeL_recall, [1, 1 / 3])
    assert found.rougeL_f1[0] == pytest.approx(2 * 0.5 / 1.5)


def test_equals_the_longest_common_subsequence():
    rng = np.random.default_rng(0)
    words = np.array(["kalo", "miru", "tove", "zan", "pelu"])  # too short or odd for the stemmer
    pairs = [(list(rng.choice(words, 9)), list(rng.choice(words, 7))) for _ in range(20)]
    found = rouge([" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs])
    np.testing.assert_allclose(found.rougeL_recall, [longest_common(a, b) / 7 for a, b in pairs])


def test_no_rows_and_unequal_lengths():
    assert [len(column) for column in rouge([], [])] == [0, 0, 0]
    with pytest.raises(ValueError, match="2 generated answers, 1 references"):
        rouge(["a", "b"], ["a"])
