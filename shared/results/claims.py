"""Claims of a paper: read, checked at plan time, and evaluated over the result tables. No pandas,
no torch.

claims.yaml is a list of
    - id: C1
      text: SalUn is closer to Retrain than RL where: Table 1 level: {mini: hard, full: hard}     #
      scale -> hard | reported; `default` stands for every other scale expr: cell("E1", "random10",
      "SalUn", "Avg. Gap") < cell("E1", "random10", "RL", "Avg. Gap")
A claim without `level` is reported at every scale; one whose `level` has neither the scale nor
`default` is not evaluated there. See `expression` for what `expr` may hold.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from shared.errors import ConfigError, UserError, nearest
from shared.files import write_json
from shared.options import Strict, explain
from shared.results import expression
from shared.results.cells import (
    MEASURED,
    NOT_RUN,
    TableCell,
    Tables,
    mean_and_std,
    read_result_file,
    read_tables,
)
from shared.results.expression import CellName, Compared, ExpressionError
from shared.results.published import Key, lookup, read_published
from shared.results.spec import ResultSpec, check_names, in_repository, parse_spec

SCHEMA = 1
HOLDS, FAILS, NOT_MEASURED, NOT_EVALUATED = "holds", "fails", "not measured", "not evaluated"
Level = Literal["hard", "reported"]


class Claim(Strict):
    """One entry of claims.yaml."""

    id: str
    text: str
    where: str
    level: dict[str, Level] = {"default": "reported"}
    expr: str

    def level_at(self, scale: str) -> Level | None:
        """hard, reported, or None where the claim is not evaluated."""
        return self.level.get(scale, self.level.get("default"))


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict with everything a reader needs to judge it.

    comparisons: each a dict of `expression.Compared` plus margin_std (over seeds, None below two
    seeds). cells: every cell used, with mean, std, n, unit. seeds_agree of seeds_total: seeds whose
    own values satisfy the claim, of those for which every used cell has a value.
    """

    id: str
    text: str
    where: str
    expr: str
    level: str
    status: str
    reason: str = ""
    seeds_agree: int = 0
    seeds_total: int = 0
    per_seed: dict[int, bool] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)


class _UnmeasuredError(UserError):
    """A cell that the claim needs has no number."""


def read_claims(path: str | Path) -> list[Claim]:
    """Read and check claims.yaml (syntax and expressions). Raises ConfigError naming file, id and
    key.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a paper without claims keeps an empty list: []") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, list):
        raise ConfigError(f"{path}: must be a list of claims (id, text, where, level, expr)")
    claims: list[Claim] = []
    for position, item in enumerate(content, start=1):
        name = item.get("id", f"number {position}") if isinstance(item, dict) else f"number {position}"
        try:
            claim = Claim.model_validate(item)
            expression.parse(claim.expr)
        except pydantic.ValidationError as error:
            raise ConfigError(f"{path}: claim {name}: {explain(error, Claim)}") from None
        except ExpressionError as error:
            raise ConfigError(f"{path}: claim {name}: {error}") from None
        if claim.id in {other.id for other in claims}:
            raise ConfigError(f"{path}: claim {claim.id} appears twice")
        claims.append(claim)
    return claims


def check_claims(claims_yaml: str | Path, spec: dict[str, Any]) -> list[Claim]:
    """Plan-time check of a paper's claims against its job spec; returns the claims.

    Every claim must parse. Those evaluated at the spec's scale must name experiments, settings,
    rows and metrics that exist, and published numbers that exist and have been read. Raises
    ConfigError: file, id, nearest name.
    """
    typed = parse_spec(spec)
    claims = read_claims(claims_yaml)
    numbers = read_published(in_repository(typed.published_csv)) if typed.published_csv else {}
    for claim in claims:
        if claim.level_at(typed.scale) is None:
            continue
        for function, name in expression.cells_of(expression.parse(claim.expr)):
            try:
                check_names(typed, *name)
                if function == "published":
                    _published_value(numbers, typed, name)
            except UserError as error:
                raise ConfigError(f"{claims_yaml}: claim {claim.id}: {error}") from None
    return claims


def _published_value(numbers: dict[Key, Any], spec: ResultSpec, name: CellName) -> float:
    number = lookup(numbers, spec, *name)
    if number is None:
        known = [key[3] for key in numbers if key[0] == spec.experiments[name[0]].published_table]
        raise ConfigError(f"no published number for {' / '.join(name)}{nearest(name[3], known)}")
    if number.checked == "recalled":
        raise ConfigError(f"published {' / '.join(name)} is recalled, not read in a document: it cannot decide a claim")
    return float(number.value)


def run(spec: dict[str, Any]) -> None:
    """Evaluate the paper's claims on tables.json and write claims.json beside it."""
    typed = parse_spec(spec)
    claims = check_claims(in_repository(typed.claims_yaml), spec) if typed.claims_yaml else []
    results = evaluate(claims, read_tables(typed.folder / "tables.json"))
    write_json(
        typed.folder / "claims.json",
        {
            "schema": SCHEMA,
            "paper": typed.paper,
            "scale": typed.scale,
            "counts": count(results),
            "claims": [asdict(result) for result in results],
        },
    )


def read_results(path: str | Path) -> list[ClaimResult]:
    """Read claims.json."""
    items = read_result_file(path, SCHEMA)["claims"]
    return [ClaimResult(**{**i, "per_seed": {int(s): bool(v) for s, v in i["per_seed"].items()}}) for i in items]


def count(results: list[ClaimResult]) -> dict[str, int]:
    """Number of claims by level and verdict; claims not evaluated at this scale are left out."""

    def number(level: str, status: str) -> int:
        return sum(result.level == level and result.status == status for result in results)

    return {
        "hard_held": number("hard", HOLDS),
        "hard_failed": number("hard", FAILS),
        "reported_held": number("reported", HOLDS),
        "reported_failed": number("reported", FAILS),
        "not_measured": sum(result.status == NOT_MEASURED for result in results),
    }


def evaluate(claims: list[Claim], tables: Tables) -> list[ClaimResult]:
    """Verdict of every claim on the means, and on each seed alone."""
    return [_evaluate(claim, tables) for claim in claims]


class _Numbers:
    """Numbers of the tables: means, or (seed given) one seed's own values. Collects every cell it
    was asked for.
    """

    def __init__(self, tables: Tables, seed: int | None = None) -> None:
        self.tables, self.seed = tables, seed
        self.cells = tables.by_key()
        self.used: dict[CellName, TableCell] = {}

    def cell(self, name: CellName) -> float:
        found = self.cells.get(name)
        where = " / ".join(name)
        if found is None:
            raise _UnmeasuredError(f"{where}: not in the records")
        if found.status != MEASURED or found.mean is None:
            raise _UnmeasuredError(f"{where}: {found.status}{f' ({found.reason})' if found.reason else ''}")
        self.used[name] = found
        return found.mean if self.seed is None else found.values[self.seed]

    def others(self, name: CellName) -> list[float]:
        experiment, setting, row, metric = name
        # Rows that the plan leaves out at this scale are not competitors here; planned ones that
        # failed are.
        rows = {
            cell.row
            for cell in self.tables.cells
            if (cell.experiment, cell.setting) == (experiment, setting) and cell.status != NOT_RUN
        }
        left_out = {row, self.tables.reference}
        return [self.cell((experiment, setting, other, metric)) for other in sorted(rows - left_out)]

    def published(self, name: CellName) -> float:
        found = self.cells.get(name)
        if found is None or found.published is None:
            raise _UnmeasuredError(f"{' / '.join(name)}: no published number")
        if found.checked == "recalled":
            raise _UnmeasuredError(f"{' / '.join(name)}: the published number is recalled and cannot decide a claim")
        return found.published


def _evaluate(claim: Claim, tables: Tables) -> ClaimResult:
    level = claim.level_at(tables.scale)
    base = ClaimResult(claim.id, claim.text, claim.where, claim.expr, level or "", NOT_EVALUATED)
    if level is None:
        return base
    tree = expression.parse(claim.expr)
    numbers = _Numbers(tables)
    try:
        holds, compared = expression.evaluate(tree, numbers)
    except (_UnmeasuredError, ExpressionError) as error:
        return ClaimResult(**{**_shallow(base), "status": NOT_MEASURED, "reason": str(error)})
    per_seed, margins = _per_seed(tree, tables, numbers.used)
    return ClaimResult(
        **{
            **_shallow(base),
            "status": HOLDS if holds else FAILS,
            "seeds_agree": sum(per_seed.values()),
            "seeds_total": len(per_seed),
            "per_seed": per_seed,
            "comparisons": [_comparison(item, margins, i) for i, item in enumerate(compared)],
            "cells": [_cell(tables, cell) for _, cell in sorted(numbers.used.items())],
            "reason": "; ".join(dict.fromkeys(c.reason for c in numbers.used.values() if c.reason)),
        }
    )


def _per_seed(tree: Any, tables: Tables, used: dict[CellName, TableCell]) -> tuple[dict[int, bool], list[list[float]]]:
    """Verdict of each seed that every used cell has, and the margins of each comparison."""
    seeds = set.intersection(*(set(cell.values) for cell in used.values())) if used else set()
    verdicts: dict[int, bool] = {}
    margins: list[list[float]] = []
    for seed in sorted(seeds):
        try:
            verdicts[seed], compared = expression.evaluate(tree, _Numbers(tables, seed))
        except ExpressionError:
            # A ratio whose divisor is zero for this seed: it has no opinion and is not counted.
            continue
        margins.append([item.margin for item in compared])
    return verdicts, margins


def _comparison(item: Compared, margins: list[list[float]], index: int) -> dict[str, Any]:
    return {**asdict(item), "margin_std": mean_and_std(margin[index] for margin in margins)[1]}


def _cell(tables: Tables, cell: TableCell) -> dict[str, Any]:
    names = ("experiment", "setting", "row", "metric", "unit", "mean", "std", "n")
    return {
        **{name: getattr(cell, name) for name in names},
        "row_label": tables.label("row", f"{cell.experiment}/{cell.row}"),
    }


def _shallow(result: ClaimResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ClaimResult.__dataclass_fields__}
