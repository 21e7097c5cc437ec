"""D_f, D_r and the unseen images: sizes, disjointness, the released seeds, bad input."""

import numpy as np
import pytest

from shared.classification.splits import make_split
from shared.classification.task import DataSpec, ForgetSpec
from shared.data.splits import validation_split
from shared.errors import ConfigError

TRAIN = np.tile(np.arange(10), 100)
TEST = np.tile(np.arange(10), 20)
CLEAN = DataSpec(name="x", validation={"fraction": 0.1, "seed": 1})
RANDOM = ForgetSpec(fraction=0.1)


def split(forget=RANDOM, seed=1, data=CLEAN):
    return make_split(TRAIN, TEST, data, forget, seed, 10)


def test_clean_split_parts_the_training_images():
    found = split()
    assert (len(found.train), len(found.forget), len(found.retain)) == (900, 90, 810)
    assert (len(found.validation), len(found.test), len(found.test_forgotten)) == (100, 200, 0)
    np.testing.assert_array_equal(np.sort(np.r_[found.forget, found.retain]), found.train)
    np.testing.assert_array_equal(np.sort(np.r_[found.train, found.validation]), np.arange(1000))
    # D_r in data-set order: the attack takes its first items
    assert (np.diff(found.retain) > 0).all()


def test_forget_set_is_the_released_draw():
    """RandomState(S - 1).choice with the release's S = seed + 1: seed 1 is its default --seed 2."""
    train, _ = validation_split(TRAIN, 0.1, 1)
    expected = train[np.random.RandomState(1).choice(900, 90, replace=False)]
    np.testing.assert_array_equal(split().forget, np.sort(expected))
    assert not np.array_equal(split(seed=2).forget, split(seed=1).forget)


def test_class_wise_takes_the_class_and_leaves_it_out_of_the_unseen_images():
    found = split(ForgetSpec(rule="class", class_index=3))
    assert set(TRAIN[found.forget]) == {3}
    assert 3 not in TRAIN[found.retain]
    assert len(found.forget) == 90
    assert 3 not in TEST[found.test]
    assert set(TEST[found.test_forgotten]) == {3}
    assert 3 not in TRAIN[found.validation]
    assert (len(found.test), len(found.test_forgotten), len(found.validation)) == (180, 20, 90)


def test_split_seed_bug_reaches_into_the_originals_validation_images():
    """About 10 % of D_f and D_r come from the split of another seed."""
    found = split(ForgetSpec(fraction=0.5, split_seed_bug=True))
    np.testing.assert_array_equal(found.train, split().train)
    marked, _ = validation_split(TRAIN, 0.1, 2)
    np.testing.assert_array_equal(np.sort(np.r_[found.forget, found.retain]), marked)
    for side in (found.forget, found.retain):
        assert 0.05 < np.isin(side, found.validation).mean() < 0.16


def test_validation_from_the_test_images_leaves_the_training_set_whole():
    held_out = DataSpec(name="x", validation={"fraction": 0.25, "source": "test"})
    found = split(data=held_out)
    assert (len(found.train), len(found.validation), len(found.test)) == (1000, 50, 150)
    assert not set(found.validation) & set(found.test)
    assert found.validation_source == "test"


def test_without_validation_everything_is_trained_on():
    found = split(forget=None, data=DataSpec(name="x", validation={"fraction": 0.0}))
    assert (len(found.retain), len(found.forget), len(found.validation)) == (1000, 0, 0)


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        (ForgetSpec(rule="class", class_index=12), "forget class 12 does not exist, the last class is 9"),
        (ForgetSpec(fraction=1e-9), "of 900 images is 0"),
    ],
)
def test_impossible_forget_sets_are_one_clear_line(forget, message):
    with pytest.raises(ConfigError, match=message):
        split(forget)


def test_a_class_of_one_image_cannot_be_forgotten():
    labels = np.r_[TRAIN, 10]
    data = DataSpec(name="x", validation={"fraction": 0.0})
    with pytest.raises(ConfigError, match="forget class 10 has 1 training images, needs 2"):
        make_split(labels, TEST, data, ForgetSpec(rule="class", class_index=10), 1, 11)


def test_forgetting_the_only_class_leaves_nothing():
    data = DataSpec(name="x", validation={"fraction": 0.0})
    forget = ForgetSpec(rule="class", class_index=0)
    with pytest.raises(ConfigError, match="nothing is left to retain"):
        make_split(np.zeros(9, int), np.zeros(9, int), data, forget, 1, 10)


def test_a_cycle_gives_each_seed_its_class():
    cycle = ForgetSpec(rule="class", class_cycle=[1, 4, 7])
    for seed, expected in ((0, 1), (1, 4), (2, 7), (3, 1)):
        found = split(cycle, seed=seed)
        assert set(TRAIN[found.forget]) == set(TEST[found.test_forgotten]) == {expected}
        assert cycle.of_seed(seed) == ForgetSpec(rule="class", class_index=expected)


def test_several_classes_go_round_the_last_one():
    found = split(ForgetSpec(rule="class", class_index=8, num_classes=4))
    assert set(TRAIN[found.forget]) == {8, 9, 0, 1}
    assert set(TEST[found.test]) == set(TRAIN[found.retain]) == {2, 3, 4, 5, 6, 7}


def test_nine_of_ten_classes_can_go_and_ten_cannot():
    assert set(TRAIN[split(ForgetSpec(rule="class", class_index=1, num_classes=9)).retain]) == {0}
    with pytest.raises(ConfigError, match="num_classes 10 leaves none of 10 classes"):
        split(ForgetSpec(rule="class", class_index=0, num_classes=10))
    with pytest.raises(ConfigError, match="forget class 11 does not exist"):
        split(ForgetSpec(rule="class", class_cycle=[0, 11]))


def test_an_exact_number_of_images():
    assert len(split(ForgetSpec(num=45)).forget) == 45
    with pytest.raises(ConfigError, match=r"forget\.num 900 of 900 images is 900"):
        split(ForgetSpec(num=900))
