"""Names of the published tables for what is measured under another name."""

from collections.abc import Mapping


def same(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """The one value it is made of."""
    (value,) = values.values()
    return value
