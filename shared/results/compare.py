"""Ours beside the published number: units, difference, and whether it is inside the spread. Plain
Python.
"""

from dataclasses import dataclass

from shared.errors import ConfigError

# unit -> (dimension, factor to the dimension's base unit). A number without a unit may be a
# fraction, never a percentage: guessing there would be wrong by a factor of 100.
UNITS: dict[str, tuple[str, float]] = {
    "ms": ("time", 1e-3),
    "s": ("time", 1.0),
    "min": ("time", 60.0),
    "h": ("time", 3600.0),
    "MB": ("memory", 1e6),
    "MiB": ("memory", 2.0**20),
    "GB": ("memory", 1e9),
    "GiB": ("memory", 2.0**30),
    "fraction": ("share", 1.0),
    "0-1": ("share", 1.0),
    "%": ("share", 0.01),
}
_PLAIN = {"", "fraction", "0-1"}
_TIMES_100 = " x100"


def conversion_factor(unit: str, wanted: str) -> float | None:
    """Factor that takes a number in `unit` to `wanted`; None if they measure different things."""
    if unit == wanted or {unit, wanted} <= _PLAIN:
        return 1.0
    if unit == wanted + _TIMES_100:
        return 0.01
    if wanted == unit + _TIMES_100:
        return 100.0
    ours, theirs = UNITS.get(unit), UNITS.get(wanted)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    # fraction -> % is exactly 100, while 1.0 / 0.01 leaves a trailing 1e-14 in the table
    return round(ours[1] / theirs[1], 12) if ours[1] > theirs[1] else 1.0 / round(theirs[1] / ours[1], 12)


def convert(value: float, unit: str, wanted: str, where: str) -> float:
    """`value` in the unit `wanted`. Raises ConfigError, starting with `where`, if they differ."""
    factor = conversion_factor(unit, wanted)
    if factor is None:
        raise ConfigError(f"{where}: unit '{unit}' cannot be converted to '{wanted}'; make the two units agree")
    return value * factor


def is_cost(unit: str) -> bool:
    """Whether a unit measures time or memory: such numbers belong to a machine and vary from run to
    run.
    """
    return unit in UNITS and UNITS[unit][0] in ("time", "memory")


@dataclass(frozen=True)
class Comparison:
    """delta = ours - published. inside: |delta| <= spread of ours + published spread; None if
    neither is known.
    """

    delta: float
    inside: bool | None


def compare(mean: float, std: float | None, published: float, published_spread: float | None) -> Comparison:
    """Compare our mean (± std) with a published number (± spread), all in one unit."""
    delta = mean - published
    if std is None and published_spread is None:
        return Comparison(delta, None)
    # 0.1 + 0.2 > 0.3 in binary: a difference exactly at the limit counts as inside
    limit = (std or 0.0) + (published_spread or 0.0)
    return Comparison(delta, abs(delta) <= limit + 1e-12 * max(abs(mean), abs(published)))
