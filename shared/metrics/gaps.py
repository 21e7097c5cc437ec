"""Distance to the retrained model: the ideal is not a high or low value but Retrain's (SalUn, arXiv:2310.12508)."""

import math
from collections.abc import Mapping


def average_gap(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Mean of |value - the reference's| over the metrics of `values`, in their common unit (points of % in the tables).

    With one metric it is that metric's gap. The tables take it of the means over seeds, as papers report it, not the
    mean of seeds' gaps.
    """
    return math.fsum(abs(value - reference[name]) for name, value in values.items()) / len(values)
