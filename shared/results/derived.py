"""Derived metrics: numbers computed from the measured ones of a row and of its reference row.

A gap (SalUn, arXiv:2310.12508, Table 1) is |mean of M - mean of M of Retrain|, "Avg. Gap" the mean of the gaps. Derived
numbers are computed of means over seeds, as papers report them; computed of each seed and of the same seed's reference,
they give the spread and serve per-seed claims. The mean of per-seed gaps is larger than the gap of means wherever a
metric scatters around the reference, so the two must not be mixed.
"""

import math
from collections.abc import Mapping

from shared.errors import ConfigError, UserError
from shared.imports import import_path
from shared.metrics.declared import DerivedSpec
from shared.results.cells import MEASURED, MISSING, TableCell, mean_and_std
from shared.results.gather import Gathered, Sample, sample
from shared.results.spec import ResultSpec


class UndefinedError(UserError):
    """A derived metric has no value here, such as a ratio whose divisor is 0."""


def derived_value(derived: DerivedSpec, values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """`function(values, reference)`, finite. Raises UndefinedError where it has no value, ConfigError for a function
    that is not there or asks for a metric which is not in `of`."""
    try:
        function = import_path(derived.function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"derived metric '{derived.name}': function '{derived.function}': {error}") from None
    try:
        value = float(function(values, reference))
    except KeyError as error:
        given = f"{', '.join(derived.of)} of the row and of {derived.reference or 'no reference'}"
        raise ConfigError(
            f"derived metric '{derived.name}': {derived.function} asks for {error}, but is given {given}"
        ) from None
    except (ArithmeticError, ValueError) as error:
        raise UndefinedError(f"{derived.name} is not defined here ({error})") from None
    if not math.isfinite(value):
        raise UndefinedError(f"{derived.name} is not defined here ({value})")
    return value


def derived_cell(
    spec: ResultSpec, where: str, derived: DerivedSpec, gathered: Gathered, rows: Mapping[str, Gathered]
) -> TableCell:
    """Cell (without its place) of one row; `rows` are all rows of the same experiment and setting, by name."""
    name = derived.reference
    if gathered.status != MEASURED:
        return _without_value(derived, gathered.status, gathered.reason)
    reference = rows.get(name) if name is not None else None
    if name is not None and (reference is None or reference.status != MEASURED):
        absent = f"no row {name} to measure {derived.name} against"
        return _without_value(derived, MISSING, absent if reference is None else f"{name} is {reference.status}")
    ours = {part: sample(spec, gathered, part, where) for part in derived.of}
    theirs = {part: sample(spec, reference, part, where) for part in derived.of} if reference else {}
    for part in derived.of:
        if not ours[part] or (reference and not theirs[part]):
            lacking = name if ours[part] else "this row"
            return _without_value(derived, MISSING, f"the record of {lacking} holds no {part}")
    incomplete = f"{name}: {reference.reason}" if reference and reference.reason and reference is not gathered else ""
    return _cell_of(derived, ours, theirs, [gathered.reason, incomplete])


def _cell_of(derived: DerivedSpec, ours: dict[str, Sample], theirs: dict[str, Sample], reasons: list[str]) -> TableCell:
    try:
        mean = derived_value(derived, _means(ours), _means(theirs))
    except UndefinedError as error:
        return _without_value(derived, MISSING, str(error))
    values: Sample = {}
    undefined = []
    for seed in sorted(set.intersection(*(set(part) for part in (*ours.values(), *theirs.values())))):
        try:
            values[seed] = derived_value(derived, _of_seed(ours, seed), _of_seed(theirs, seed))
        except UndefinedError:
            undefined.append(seed)
    lacking = f"no {derived.name} for seeds {', '.join(map(str, undefined))}" if undefined else ""
    return TableCell(
        "",
        "",
        "",
        derived.name,
        mean=mean,
        std=mean_and_std(values.values())[1],
        n=len(values),
        values=values,
        reason="; ".join(filter(None, [*reasons, lacking])),
    )


def _without_value(derived: DerivedSpec, status: str, reason: str) -> TableCell:
    return TableCell("", "", "", derived.name, status=status, reason=reason)


def _means(samples: dict[str, Sample]) -> dict[str, float]:
    return {name: mean_and_std(values.values())[0] or 0.0 for name, values in samples.items()}


def _of_seed(samples: dict[str, Sample], seed: int) -> dict[str, float]:
    return {name: values[seed] for name, values in samples.items()}
