"""AUS: the published rows follow from the published accuracies."""

import pytest

from papers.duck.scores import aus, aus_random, forget_gap

ORIGINAL = {"TA": 77.55, "TA_forget": 77.5}


@pytest.mark.parametrize(
    ("kept", "remembered", "published"),
    [(77.55, 77.5, 0.563), (77.97, 0.0, 1.004), (71.57, 1.0, 0.931), (62.84, 0.5, 0.849), (55.31, 0.4, 0.774)],
    ids=["Original", "Retrained", "DUCK", "Negative Gradient", "Random Labels"],
)
def test_published_rows_of_cifar100_class_removal(kept, remembered, published):
    assert aus({"TA": kept, "TA_forget": remembered}, ORIGINAL) == pytest.approx(published, abs=6e-4)


def test_limits():
    assert aus(ORIGINAL, ORIGINAL) == pytest.approx(1 / 1.775)  # nothing done: 1 / (1 + A_f)
    assert aus({"TA": 77.55, "TA_forget": 0.0}, ORIGINAL) == 1.0  # a perfect unlearner
    assert aus({"TA": 80.0, "TA_forget": 0.0}, ORIGINAL) > 1


def test_random_samples_are_judged_by_the_distance_to_unseen_ones():
    original = {"TA": 77.56, "FA": 100.0}
    assert aus_random(original, original) == pytest.approx(1 / 1.2244)
    assert aus_random({"TA": 77.56, "FA": 77.56}, original) == 1.0
    # beyond unseen accuracy is as bad as short of it
    assert aus_random({"TA": 70.0, "FA": 60.0}, original) == pytest.approx(
        aus_random({"TA": 70.0, "FA": 80.0}, original)
    )
    assert forget_gap({"TA": 70.0, "FA": 60.0}, original) == pytest.approx(10)
