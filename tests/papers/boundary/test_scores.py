"""Derived numbers."""

import pytest

from papers.boundary.scores import member_share, speed_up


def test_member_share_is_the_complement_of_mia():
    assert member_share({"MIA": 100.0}, {}) == 0.0
    assert member_share({"MIA": 12.5}, {}) == 87.5


def test_speed_up_is_one_for_the_reference_itself():
    assert speed_up({"RTE": 0.25}, {"RTE": 0.25}) == 1.0
    assert speed_up({"RTE": 0.01}, {"RTE": 0.17}) == pytest.approx(17.0)
