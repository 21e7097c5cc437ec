"""Scores of DUCK (arXiv:2312.02052): the Adaptive Unlearning Score, one number for what is kept and what is forgotten,
and accuracies under the names of the paper. All accuracies in %; AUS is about 1 for a perfect unlearner, or above."""

from collections.abc import Mapping

Values = Mapping[str, float]


def aus(values: Values, reference: Values) -> float:
    """Class removal: (1 - (A_or - A_r)) / (1 + A_f), on test images of the retained (TA) and the forgotten (TA_forget)
    classes. A_or: TA of the reference, the original."""
    return _score(values["TA"], reference["TA"], values["TA_forget"])


def aus_random(values: Values, reference: Values) -> float:
    """Random samples: (1 - (A_or - A_t)) / (1 + |A_f - A_t|), A_t test accuracy (TA), A_f accuracy on D_f (FA)."""
    return _score(values["TA"], reference["TA"], abs(values["FA"] - values["TA"]))


def aus_tuning(values: Values, reference: Values) -> float:
    """AUS without test images, for both scenarios: the reference is the retrained model, whose accuracy on D_f (about 0
    for a class, A_t for random samples) says what is to be reached."""
    return _score(values["TA"], reference["TA"], abs(values["FA"] - reference["FA"]))


def forget_gap(values: Values, reference: Values) -> float:
    """|A_f - A_t| (FA, TA): how far accuracy on D_f is from that on unseen images."""
    return abs(values["FA"] - values["TA"])


def test_accuracy(values: Values, reference: Values) -> float:
    """TA, under the name that it has in the paper."""
    return values["TA"]


def forgotten_accuracy(values: Values, reference: Values) -> float:
    """TA_forget, under the name that it has in the paper."""
    return values["TA_forget"]


def _score(kept: float, original: float, remembered: float) -> float:
    return (1 - (original - kept) / 100) / (1 + remembered / 100)
