"""The attack's rules: members, balance, direction, features."""

import numpy as np
import pytest

from shared.errors import ConfigError, UserError
from shared.metrics.gaps import average_gap
from shared.metrics.membership import FEATURES, Probabilities, membership_attack


def outputs(num, sharpness, seed, num_classes=4):
    """Softmax outputs of a model that is right with a margin around `sharpness`."""
    random = np.random.RandomState(seed)
    labels = random.randint(num_classes, size=num)
    logits = random.randn(num, num_classes)
    logits[np.arange(num), labels] += sharpness
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    values = exponentials / exponentials.sum(1, keepdims=True)
    return Probabilities(values.astype(np.float32), labels)


def test_forget_set_that_looks_like_members_is_found_and_like_unseen_is_not():
    retain, unseen = outputs(300, 12, 0), outputs(300, 0, 1)
    forgotten, remembered = outputs(100, 0, 2), outputs(100, 12, 3)
    assert membership_attack(retain, unseen, remembered)["confidence"] < 2
    assert membership_attack(retain, unseen, forgotten)["confidence"] > 80


def test_original_scores_low_and_the_measure_is_in_percent():
    retain, unseen = outputs(400, 10, 0), outputs(400, 3, 1)
    value = membership_attack(retain, unseen, retain.first(100))["confidence"]
    assert 0 <= value < 20


def test_exchanging_members_and_non_members_gives_the_complement():
    """A model that is equal on both sides has no side: what one labelling calls member, the other
    denies."""
    first, second, forget = outputs(250, 3, 0), outputs(250, 3, 1), outputs(150, 3, 2)
    there = membership_attack(first, second, forget)["confidence"]
    back = membership_attack(second, first, forget)["confidence"]
    assert there + back == pytest.approx(100)


def test_only_the_first_items_up_to_the_shorter_side_train_the_attack():
    retain, unseen, forget = outputs(500, 9, 0), outputs(200, 4, 1), outputs(100, 5, 2)
    features = list(FEATURES)
    cut = membership_attack(retain.first(200), unseen, forget, features)
    assert membership_attack(retain, unseen, forget, features) == cut
    short = membership_attack(retain.first(90), unseen, forget, features)
    assert short == membership_attack(retain.first(90), unseen.first(90), forget, features)


def test_features():
    p = Probabilities(np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]), np.array([0, 1]))
    np.testing.assert_allclose(FEATURES["confidence"](p), [[0.7], [0.0]])
    np.testing.assert_allclose(FEATURES["correctness"](p), [[1], [0]])
    h = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(FEATURES["entropy"](p), [[h], [0]], atol=1e-12)
    m = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    # certain and wrong: -(1 - 0) log 0 - 1 log 0, with log 0 cut at 1e-30
    np.testing.assert_allclose(FEATURES["modified_entropy"](p), [[m], [-2 * np.log(1e-30)]])
    assert FEATURES["probability"](p).shape == (2, 3)


def test_bad_input_is_one_clear_line():
    p = outputs(5, 1, 0)
    with pytest.raises(UserError, match="5 retained, 5 unseen and 0 forgotten"):
        membership_attack(p, p, p.first(0))
    with pytest.raises(ConfigError, match="did you mean 'entropy'"):
        membership_attack(p, p, p, ["entropi"])


def test_gaps_reproduce_rows_of_the_published_table():
    """SalUn, 10 %: (2.39 + 0.38 + 0.33 + 1.51) / 4 = 1.1525, printed as 1.15."""
    retrain = {"UA": 5.24, "RA": 100.0, "TA": 94.26, "MIA": 12.88}
    salun = {"UA": 2.85, "RA": 99.62, "TA": 93.93, "MIA": 14.39}
    assert average_gap(salun, retrain) == pytest.approx(1.1525)
    assert average_gap({"MIA": salun["MIA"]}, retrain) == pytest.approx(1.51)
    assert average_gap(retrain, retrain) == 0.0
    assert average_gap(salun, retrain) == average_gap(retrain, salun)
