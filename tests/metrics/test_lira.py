"""The likelihood-ratio attack: its logit, its score, and the area it encloses."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from shared.errors import UserError
from shared.metrics.lira import lira_auc, lira_scores, logit_confidence


def confidences(shape, centre, seed):
    """Probabilities whose logits are normal around `centre`."""
    return 1 / (1 + np.exp(-(centre + np.random.RandomState(seed).randn(*np.atleast_1d(shape)))))


def test_the_logit_is_that_of_the_probability_and_finite_at_the_ends():
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    found = logit_confidence(p)
    np.testing.assert_allclose(found[1:4], np.log(p[1:4] / (1 - p[1:4])), atol=1e-5)
    np.testing.assert_allclose(found[[0, 4]], [np.log(1e-7), np.log(1e7)], rtol=1e-6)


def test_the_score_is_the_distance_from_the_shadows_in_their_spread():
    shadows = confidences((64, 5), 1.0, 0)
    logits = logit_confidence(shadows)
    judged = confidences(5, 2.0, 1)
    expected = norm(logits.mean(0), logits.std(0)).cdf(logit_confidence(judged))
    np.testing.assert_allclose(norm.cdf(lira_scores(judged, shadows)), expected, rtol=1e-9)


def test_a_model_like_its_shadows_gives_half_and_a_sure_one_more():
    """Members d standard deviations more confident: area Phi(d / sqrt 2)."""
    shadows = confidences((80, 10_000), 0.0, 0)
    for shift in (0.0, 1.0, 2.0):
        found = lira_auc(confidences(5000, shift, 1), shadows[:, :5000], confidences(5000, 0.0, 2), shadows[:, 5000:])
        assert found == pytest.approx(100 * norm.cdf(shift / np.sqrt(2)), abs=2)


def test_hard_samples_count_by_their_own_shadows():
    """Raw confidence would order these the wrong way round: the member is a hard image."""
    easy, hard = confidences((80, 200), 5.0, 0), confidences((80, 200), -3.0, 1)
    found = lira_auc(confidences(200, 0.0, 2), hard, confidences(200, 5.0, 3), easy)
    assert found > 95


def test_the_area_is_that_of_the_rank_test_and_exchanging_sides_gives_the_complement():
    members, others = confidences(40, 0.5, 0), confidences(60, 0.0, 1)
    shadows = confidences((9, 40), 0.0, 2), confidences((9, 60), 0.0, 3)
    found = lira_auc(members, shadows[0], others, shadows[1])
    scores = lira_scores(members, shadows[0]), lira_scores(others, shadows[1])
    assert found == pytest.approx(100 * mannwhitneyu(*scores).statistic / (40 * 60))
    assert lira_auc(others, shadows[1], members, shadows[0]) == pytest.approx(100 - found)


def test_shadows_without_spread_still_tell_the_direction():
    shadows = np.full((3, 2), 0.5)
    assert lira_auc(np.array([0.9, 0.8]), shadows, np.array([0.1, 0.5]), shadows) == 100


def test_bad_input_is_one_clear_line():
    one, two = np.full((1, 4), 0.5), np.full((2, 4), 0.5)
    with pytest.raises(UserError, match="at least 2 shadow models for a spread, got 1"):
        lira_auc(one[0], one, one[0], one)
    with pytest.raises(UserError, match=r"\(3,\) confidences but \(2, 4\) of shadow models"):
        lira_auc(one[0, :3], two, one[0], two)
    with pytest.raises(UserError, match="0 members and 4 non-members"):
        lira_auc(one[0, :0], two[:, :0], one[0], two)
    with pytest.raises(UserError, match="not finite"):
        lira_auc(np.full(4, np.nan), two, one[0], two)
