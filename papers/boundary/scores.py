"""Derived numbers of the tables."""

from collections.abc import Mapping


def member_share(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Share of D_f that the attack calls a member, in %: MIA counts those that it calls none."""
    return 100 - values["MIA"]


def speed_up(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Retrain's run time over the row's."""
    return reference["RTE"] / values["RTE"]
