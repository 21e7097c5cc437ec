"""Seeded splits: the drawing order of the released code, and set identities."""

import numpy as np
import pytest

from shared.data.splits import complement, draw, forget_split, validation_split
from shared.errors import ConfigError

LABELS = np.random.RandomState(7).randint(0, 10, 1000)


def test_validation_split_is_a_partition_with_ten_percent_a_class() -> None:
    train, validation = validation_split(LABELS, 0.1, seed=1)
    assert sorted([*train, *validation]) == list(range(1000))
    assert (np.diff(train) > 0).all()
    assert train.dtype == validation.dtype == np.int64
    for label in range(10):
        assert (LABELS[validation] == label).sum() == int(0.1 * (label == LABELS).sum())


def test_one_generator_serves_all_classes_in_turn() -> None:
    """Independent implementation: a plain loop that shares one RandomState, over lists instead of
    arrays.
    """
    state, expected = np.random.RandomState(3), []
    for label in range(10):
        positions = [i for i, value in enumerate(LABELS) if value == label]
        expected += list(state.choice(positions, int(len(positions) * 0.1), replace=False))
    assert validation_split(LABELS, 0.1, seed=3)[1].tolist() == expected
    # the second class would be drawn differently by a generator of its own
    second = np.flatnonzero(LABELS == 1)
    alone = np.random.RandomState(3).choice(second, int(0.1 * len(second)), replace=False)
    assert alone.tolist() != [i for i in expected if LABELS[i] == 1]


def test_cifar_sizes_and_golden_values() -> None:
    labels = np.tile(np.arange(10), 5000)
    train, validation = validation_split(labels, 0.1, seed=1)
    assert (len(train), len(validation)) == (45000, 5000)
    assert validation[:5].tolist() == GOLDEN_VALIDATION
    forget, retain = forget_split(45000, 4500, seed=2)
    assert (len(forget), len(retain)) == (4500, 40500)
    assert forget[:5].tolist() == GOLDEN_FORGET


# numpy promises that RandomState's streams never change
GOLDEN_VALIDATION = [27640, 47670, 38140, 34990, 27350]
GOLDEN_FORGET = [25275, 12561, 24707, 25066, 33429]


def test_seeds_one_and_two_differ_slightly_as_in_the_released_code() -> None:
    labels = np.tile(np.arange(10), 5000)
    first, second = (set(validation_split(labels, 0.1, seed)[1].tolist()) for seed in (1, 2))
    assert len(first & second) / 5000 == pytest.approx(0.1, abs=0.02)


def test_forget_split_uses_the_seed_minus_one() -> None:
    forget, retain = forget_split(100, 10, seed=5)
    assert forget.tolist() == np.random.RandomState(4).choice(100, 10, replace=False).tolist()
    assert sorted([*forget, *retain]) == list(range(100))
    with pytest.raises(ConfigError, match="at least 1"):
        forget_split(100, 10, seed=0)


def test_edges() -> None:
    assert len(forget_split(10, 0, 1)[0]) == 0
    assert len(forget_split(10, 10, 1)[1]) == 0
    with pytest.raises(ConfigError, match="cannot draw 11 of 10"):
        draw(np.arange(10), 11, 1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        validation_split(LABELS, 1.0, 1)


def test_complement() -> None:
    assert complement(5, np.array([1, 3])).tolist() == [0, 2, 4]
