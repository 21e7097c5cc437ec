"""Decimals of numbers by unit and size."""

import pytest

from shared.results.show import number


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (5.0859, "MiB", "5.09"),  # sizes of parts: whole numbers would make 4.6 and 5.4 equal
        (1191.5, "MiB", "1\N{THIN SPACE}192"),
        (0.00001, "MiB", "0.00"),
        (12.0, "steps", "12"),
        (79.475, "%", "79.47"),
        (0.5956, "", "0.596"),
        (2.19e-16, "p-value", "2.19e\N{NON-BREAKING HYPHEN}16"),
        (None, "%", "—"),
    ],
)
def test_a_number_has_the_decimals_of_its_unit(value, unit, shown):
    assert number(value, unit).replace("\N{MINUS SIGN}", "\N{NON-BREAKING HYPHEN}") == shown
