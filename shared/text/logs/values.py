"""Numbers of a log file: checked on the way in, valid JSON on the way out.

JSON has no NaN or infinity. They are written as the strings "NaN", "Infinity" and "-Infinity" (the JSON mapping of
Protocol Buffers has the same) and read back from these, and from the bare words NaN and Infinity that Python's json
module writes, as logs of diverged models by other programs have them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.text.logs.log import Array, floats

Bounds = tuple[float, float]
# Mean losses may be infinite or NaN, and below 0 by rounding only; a loss of -inf would be a probability of infinity.
LOSS: Bounds = (-1e-3, math.inf)
SHARE: Bounds = (0.0, 1.0)
ANY: Bounds = (-math.inf, math.inf)

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """A number, or an array of them, as JSON: integers where a count is meant are the caller's to make."""
    if isinstance(value, np.ndarray):
        return [encode(item) for item in value]
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def encode_counts(value: Any) -> Any:
    """Token counts, (N,) or a row of them, as JSON integers."""
    return [encode_counts(item) for item in value] if isinstance(value, np.ndarray) else int(value)


def decode(value: Any, where: str, bounds: Bounds = ANY) -> float:
    """One number; `where` names file, metric and row. NaN passes where there is no upper bound."""
    number = _WORDS.get(value) if isinstance(value, str) else _number(value)
    if number is None:
        raise DataError(f"{where} is {_shown(value)}, not a number")
    low, high = bounds
    if not (low <= number <= high or (math.isnan(number) and math.isinf(high))):
        raise DataError(f"{where} is {_shown(value)}, outside {low:g} to {high:g}")
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def row_numbers(rows: Mapping[str, Any], where: str) -> list[int]:
    """Keys "0", "1", ... as ascending numbers: other programs write them in the order in which batches finished."""
    if not rows:
        raise DataError(f"{where} has no rows")
    for key in rows:
        if not key.isdecimal() or str(int(key)) != key:
            raise DataError(f"{where}: row key '{key}' is not a row number")
    return sorted(int(key) for key in rows)


def same_rows(rows: Mapping[str, Any], index: Sequence[int], where: str, reference: str) -> list[Any]:
    """Values in the order of `index`, the row numbers of the metric `reference`; both must have the same rows."""
    missing = [row for row in index if str(row) not in rows]
    if missing:
        raise DataError(f"{where} has {len(rows)} rows, {reference} has {len(index)}: row {missing[0]} is missing")
    if len(rows) > len(index):
        extra = next(iter(rows.keys() - {str(row) for row in index}))
        raise DataError(
            f"{where} has {len(rows)} rows, {reference} has {len(index)}: row {extra} is only in the former"
        )
    return [rows[str(row)] for row in index]


def column(values: Iterable[Any], index: Sequence[int], where: str, bounds: Bounds = ANY) -> Array:
    """One number a row: (N,)."""
    return floats([decode(v, f"{where}, row {row},", bounds) for v, row in zip(values, index, strict=True)])


def table(values: Iterable[Any], index: Sequence[int], where: str, bounds: Bounds = ANY) -> Array:
    """Equally many numbers a row: (N, P). A single number is a row of one."""
    rows: list[list[float]] = []
    for value, row in zip(values, index, strict=True):
        items = value if isinstance(value, list) else [value]
        rows.append([decode(item, f"{where}, row {row},", bounds) for item in items])
        if len(rows[-1]) != len(rows[0]) or not items:
            raise DataError(f"{where}, row {row}, has {len(items)} values, row {index[0]} has {len(rows[0])}")
    return floats(rows)


def strings(values: Sequence[Any], index: Sequence[int], where: str) -> list[str]:
    """One text a row."""
    for value, row in zip(values, index, strict=True):
        if not isinstance(value, str):
            raise DataError(f"{where}, row {row}, is {_shown(value)}, not a text")
    return list(values)


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
