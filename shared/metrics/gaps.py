"""Distance to the retrained model: the ideal is not a high or low value but Retrain's (SalUn, arXiv:2310.12508)."""

from collections.abc import Mapping, Sequence

from shared.errors import UserError


def gaps(values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """|value - Retrain's| of each named metric, in the metrics' unit (points of % in the
    tables)."""
    for name in names:
        if name not in values or name not in reference:
            side = "the method" if name not in values else "the reference"
            raise UserError(f"gap: metric '{name}' was not measured for {side}")
    return {name: abs(values[name] - reference[name]) for name in names}


def average_gap(values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]) -> float:
    """Mean of the gaps; the tables take it of the means over seeds, not the mean of seeds' gaps."""
    return sum(gaps(values, reference, names).values()) / len(names)
