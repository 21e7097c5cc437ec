import pytest

from shared.errors import ConfigError
from shared.results.compare import UNITS, compare, conversion_factor, convert, is_cost


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (90.0, "s", "min", 1.5),
        (1.5, "h", "min", 90.0),
        (0.125, "fraction", "%", 12.5),
        (12.5, "%", "0-1", 0.125),
        (0.6, "", "fraction", 0.6),
        (1.0, "GB", "MB", 1000.0),
        (1.0, "GiB", "MiB", 1024.0),
        (41.0, "ROUGE-L recall x100", "ROUGE-L recall", 0.41),
        (3.0, "steps", "steps", 3.0),
    ],
)
def test_conversion(value, unit, wanted, expected):
    assert convert(value, unit, wanted, "here") == pytest.approx(expected, rel=1e-12)
    assert convert(expected, wanted, unit, "here") == pytest.approx(value, rel=1e-12)


def test_fraction_to_percent_is_exact():
    assert convert(0.07, "fraction", "%", "here") == 0.07 * 100


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_there_and_back_is_one(unit):
    for other in UNITS:
        there, back = conversion_factor(unit, other), conversion_factor(other, unit)
        assert (there is None) == (back is None) == (UNITS[unit][0] != UNITS[other][0])
        if there is not None and back is not None:
            assert there * back == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("unit", "wanted"), [("%", "min"), ("", "%"), ("s", "MB"), ("steps", "s"), ("dB", "")])
def test_other_quantities_are_refused(unit, wanted):
    with pytest.raises(ConfigError, match=f"published.csv, line 7: unit '{unit}' cannot be converted to '{wanted}'"):
        convert(1.0, unit, wanted, "published.csv, line 7")


@pytest.mark.parametrize(
    ("mean", "std", "published", "spread", "inside"),
    [
        (2.0, 0.5, 1.0, 0.5, True),  # exactly at the limit
        (2.1, 0.5, 1.0, 0.5, False),
        (1.4, None, 1.0, 0.5, True),
        (1.4, 0.3, 1.0, None, False),
        (1.0, None, 1.0, None, None),
        (0.3, 0.1, 0.1, 0.1, True),  # 0.2 > 0.1 + 0.1 in binary
        (1.0, 0.0, 1.0, 0.0, True),
    ],
)
def test_inside_is_the_sum_of_both_spreads(mean, std, published, spread, inside):
    found = compare(mean, std, published, spread)
    assert found.inside is inside
    assert found.delta == mean - published


def test_cost_units():
    assert is_cost("min")
    assert is_cost("MiB")
    assert not is_cost("%")
    assert not is_cost("steps")
