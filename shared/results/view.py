"""What the report shows, as plain values: the HTML page and its Markdown twin are made from the
same view.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.metrics.declared import DerivedSpec
from shared.results import show
from shared.results.cells import MEASURED, NOT_RUN, TableCell, Tables
from shared.results.claims import ClaimResult, count
from shared.results.figure import Figure, Listing
from shared.results.spec import COST_UNITS, ResultSpec
from shared.results.verdict import Verdict, incomplete, judge

# Direction of a column: larger, smaller, or closer to the reference row is better.
ARROWS = {"higher": "↑", "lower": "↓", "closest_to_retrain": "≈", "": ""}
VERDICT_WORDS = {True: "inside", False: "outside", None: "unknown"}
MAX_VALUES = 4


@dataclass(frozen=True)
class CellView:
    """ours, published and delta as text ("" where there is none).

    verdict: inside, outside, unknown (no spread known), other (other data than the paper's) or "".
    """

    status: str
    ours: str
    published: str = ""
    mark: str = ""
    delta: str = ""
    verdict: str = ""
    is_best: bool = False
    is_incomplete: bool = False
    reason: str = ""

    @property
    def glyph(self) -> str:
        """Where the difference lies, readable without colour."""
        outside = "▼" if self.delta.startswith("−") else "▲"
        return {"inside": "●", "outside": outside, "unknown": "◌"}.get(self.verdict, "")


@dataclass(frozen=True)
class RowView:
    label: str
    is_reference: bool
    cells: list[CellView]


@dataclass(frozen=True)
class TableView:
    """One setting. other_data: a sentence if the published numbers are of other data, else ""."""

    label: str
    published: str
    other_data: str
    columns: list[dict[str, str]]
    rows: list[RowView]
    missing: list[tuple[str, str]]
    num_seeds: str


@dataclass(frozen=True)
class ExperimentView:
    key: str
    title: str
    note: str
    published_table: str
    tables: list[TableView]
    not_run: list[tuple[str, str]]
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class Page:
    """Everything on a report."""

    paper: str
    scale: str
    title: str
    reference: str
    verdict: Verdict
    facts: list[tuple[str, str]]
    counts: dict[str, int]
    claims: list[dict[str, Any]]
    not_evaluated: list[str]
    experiments: list[ExperimentView]
    has_comparable: bool
    figures: list[Figure] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    provenance: list[tuple[str, str]] = field(default_factory=list)
    costs: list[dict[str, str]] = field(default_factory=list)
    total_cost: str = ""
    sources: list[tuple[str, str, int]] = field(default_factory=list)


def page_of(spec: ResultSpec, tables: Tables, claims: list[ClaimResult], figures: Sequence[Figure | Listing]) -> Page:
    """The report's content."""
    experiments = [_experiment(spec, tables, name) for name in spec.experiments]
    listed = [cell for cell in tables.cells if cell.listed]
    return Page(
        paper=spec.paper,
        scale=spec.scale,
        title=spec.title or spec.paper,
        reference=spec.reference or "",
        verdict=judge(tables, claims),
        facts=_facts(spec, tables),
        counts=count(claims),
        claims=[_claim(claim) for claim in claims if claim.level],
        not_evaluated=[f"{claim.id}: {claim.text}" for claim in claims if not claim.level],
        experiments=experiments,
        has_comparable=any(cell.delta is not None and cell.comparable for cell in listed),
        figures=[figure for figure in figures if isinstance(figure, Figure)],
        listings=[figure for figure in figures if isinstance(figure, Listing)],
        deviations=list(spec.deviations),
        provenance=[(key, _values(values)) for key, values in tables.provenance.items()],
        costs=_costs(tables),
        total_cost=_total_cost(tables.summary),
        sources=_sources(listed),
    )


def _facts(spec: ResultSpec, tables: Tables) -> list[tuple[str, str]]:
    summary = tables.summary
    first, last = summary["first_date"], summary["date"]
    dates = show.day(last) if first[:10] == last[:10] else f"{first[:10]} to {show.day(last)}"
    facts = [
        ("Paper", spec.paper),
        ("Scale", spec.scale),
        ("Records made", dates),
        ("Commit", show.commit(summary)),
        ("Device", ", ".join(summary["devices"]) or "none yet"),
        ("Compute", show.duration(summary["seconds"])),
        ("Seeds", show.seeds(summary["seeds"]) or "none yet"),
        ("Track", spec.track),
    ]
    return [(name, value) for name, value in facts if value]


def _values(values: list[str]) -> str:
    return ", ".join(values) if len(values) <= MAX_VALUES else f"{len(values)} different values"


# ---- tables


def _experiment(spec: ResultSpec, tables: Tables, name: str) -> ExperimentView:
    experiment = spec.experiments[name]
    views, not_run = [], []
    for key, setting in experiment.settings.items():
        cells = [c for c in tables.cells if c.listed and (c.experiment, c.setting) == (name, key)]
        if all(cell.status == NOT_RUN for cell in cells):
            why = setting.why_not or experiment.note or "not planned at this scale"
            not_run.append((setting.label or key, why))
        else:
            views.append(_table(spec, tables, name, key, cells))
    if views:
        not_run += [(row.label or key, row.why_not) for key, row in experiment.rows.items() if row.why_not]
    return ExperimentView(
        key=name,
        title=experiment.title,
        note=experiment.note,
        published_table=experiment.published_table or "",
        tables=views,
        not_run=not_run,
        rows=[_method(key, row) for key, row in experiment.rows.items()] if views else [],
    )


def _method(key: str, row: Any) -> dict[str, str]:
    special = "; ".join(f"{setting}: {_options(o)}" for setting, o in row.per_setting.items())
    return {
        "label": row.label or key,
        "method": row.method,
        "options": _options(row.options),
        "per_setting": special,
    }


def _options(options: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()
    )


def _table(spec: ResultSpec, tables: Tables, name: str, key: str, cells: list[TableCell]) -> TableView:
    experiment, setting = spec.experiments[name], spec.experiments[name].settings[key]
    by_key = {(cell.row, cell.metric): cell for cell in cells}
    best = best_rows(tables, cells)
    rows = []
    for row_key, row in experiment.rows.items():
        views = [_cell(by_key[row_key, metric], row_key in best[metric]) for metric in experiment.metrics]
        rows.append(RowView(row.label or row_key, row_key == spec.reference, views))
    has_published = any(cell.published is not None for cell in cells)
    is_other = has_published and not spec.is_comparable(name, key)
    numbers = sorted({cell.n for cell in cells if cell.status == MEASURED})
    span = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else "".join(map(str, numbers))
    ours = setting.label or key
    return TableView(
        label=ours,
        published=setting.published or "" if has_published else "",
        other_data=f"The published numbers are of other data ({setting.published}), "
        f"ours of {ours}: compare the order of the methods, not the values."
        if is_other
        else "",
        columns=[_column(spec, metric) for metric in experiment.metrics],
        rows=rows,
        missing=[(place.rpartition(" / ")[2], why) for place, why in incomplete(cells)],
        num_seeds="1 seed" if span == "1" else f"{span} seeds" if span else "",
    )


def _column(spec: ResultSpec, name: str) -> dict[str, str]:
    metric = spec.metric(name)
    unit, better = (metric.unit, metric.better) if metric else ("", "")
    label = metric.label if metric else ""
    shown = name.replace("_", " ") if isinstance(metric, DerivedSpec) or name in COST_UNITS else name
    return {"name": shown, "unit": unit, "arrow": ARROWS[better], "label": label or name}


def best_rows(tables: Tables, cells: list[TableCell]) -> dict[str, set[str]]:
    """Metric -> best rows, the reference row excepted; empty below two measured rows or without a
    direction.
    """
    best: dict[str, set[str]] = {}
    for metric in dict.fromkeys(cell.metric for cell in cells):
        found = [c for c in cells if c.metric == metric and c.mean is not None]
        target = next((c.mean for c in found if c.row == tables.reference), None)
        scores: dict[str, float] = {}
        for cell in found:
            mean = cell.mean or 0.0
            if cell.row == tables.reference:
                continue
            if cell.better == "closest_to_retrain" and target is not None:
                scores[cell.row] = abs(mean - target)
            elif cell.better in ("higher", "lower"):
                scores[cell.row] = mean if cell.better == "lower" else -mean
        is_race = len(scores) > 1 and len(set(scores.values())) > 1
        least = min(scores.values(), default=0.0)
        best[metric] = {row for row, score in scores.items() if score == least} if is_race else set()
    return best


def _cell(cell: TableCell, is_best: bool) -> CellView:
    published = show.spread(cell.published, cell.published_spread, cell.unit)
    if cell.published is None:
        published = ""
    if cell.status != MEASURED:
        return CellView(cell.status, "", published, cell.mark, reason=cell.reason)
    verdict = ""
    if cell.delta is not None:
        verdict = VERDICT_WORDS[cell.inside] if cell.comparable else "other"
    return CellView(
        status=cell.status,
        ours=show.spread(cell.mean, cell.std, cell.unit),
        published=published,
        mark=cell.mark,
        delta="" if cell.delta is None else show.number(cell.delta, cell.unit, sign=True),
        verdict=verdict,
        is_best=is_best,
        is_incomplete=bool(cell.reason),
        reason=cell.reason,
    )


# ---- claims


def _claim(claim: ClaimResult) -> dict[str, Any]:
    units = {cell["unit"] for cell in claim.cells}
    unit = next(iter(units)) if len(units) == 1 else ""
    comparisons = [
        {
            **item,
            "op": show.comparison(item["op"]),
            # A plain number needs no name beside it.
            **{s: "" if is_number(item[s]) else item[s] for s in ("left_text", "right_text")},
            "left_number": show.number(item["left"], unit),
            "right_number": show.number(item["right"], unit),
            "margin_text": _margin(item, unit),
        }
        for item in claim.comparisons
    ]
    cells = [
        {
            **cell,
            "place": f"{cell['experiment']} / {cell['setting']} / {cell['row_label']}",
            "number": show.spread(cell["mean"], cell["std"], cell["unit"]),
        }
        for cell in claim.cells
    ]
    return {
        **{name: getattr(claim, name) for name in ("id", "text", "where", "level", "status")},
        "reason": claim.reason,
        "expr": claim.expr,
        "comparisons": comparisons,
        "cells": cells,
        "unit": unit,
        "seeds": [claim.per_seed[seed] for seed in sorted(claim.per_seed)],
        "agreement": f"{claim.seeds_agree} of {claim.seeds_total} seeds agree" if claim.seeds_total else "",
    }


def is_number(text: str) -> bool:
    """Whether one side of a comparison is a constant."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _margin(item: dict[str, Any], unit: str) -> str:
    text = show.number(item["margin"], unit, sign=True)
    spread = item["margin_std"]
    if spread is None:
        return text
    return f"{text} ± {show.number(spread, unit)}"


# ---- cost and sources


def _costs(tables: Tables) -> list[dict[str, str]]:
    """Cost of one seed of each measured row; average over seeds."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in tables.cells:
        if cell.metric not in COST_UNITS or cell.mean is None:
            continue
        place = (cell.experiment, cell.setting, cell.row)
        experiment, setting, row = place
        line = lines.setdefault(
            place,
            {
                "place": f"{experiment} / {tables.label('setting', f'{experiment}/{setting}')}",
                "row": tables.label("row", f"{experiment}/{row}"),
                "n": str(cell.n),
            },
        )
        line[cell.metric] = (
            show.memory(cell.mean) if cell.metric == "peak_memory_mb" else show.spread(cell.mean, cell.std, cell.unit)
        )
    return list(lines.values())


def _total_cost(summary: dict[str, Any]) -> str:
    steps = show.number(summary["steps"], "steps")
    text = (
        f"{show.duration(summary['seconds'])} of computing and {steps} steps in "
        f"{summary['num_records']} records, at most {show.memory(summary['peak_memory_mb'])}"
    )
    stages = summary.get("stages", [])
    if stages:
        text += (
            f"; {len(stages)} shared stages (models trained once for every row and paper that "
            f"needs them) took {show.duration(summary['stage_seconds'])}"
        )
    return text + "."


def _sources(cells: list[TableCell]) -> list[tuple[str, str, int]]:
    """(source, mark, how many numbers) of the published numbers shown."""
    counted: dict[tuple[str, str], int] = {}
    for cell in cells:
        if cell.published is not None:
            key = (cell.source, cell.mark or cell.checked)
            counted[key] = counted.get(key, 0) + 1
    return [(source, mark, number) for (source, mark), number in counted.items()]
