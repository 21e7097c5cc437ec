"""Result tables: one long table of ours beside the published numbers, from the records of a paper
at one scale. How derived metrics such as gaps are computed: `shared.results.derived`.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import RecordError
from shared.files import write_text
from shared.metrics.declared import DerivedSpec
from shared.results.cells import (
    COLUMNS,
    MEASURED,
    MISSING,
    NOT_RUN,
    TableCell,
    Tables,
    mean_and_std,
    read_tables,
    write_tables,
)
from shared.results.compare import compare, convert
from shared.results.derived import derived_cell
from shared.results.gather import (
    Gathered,
    Place,
    Sample,
    gather,
    merged_provenance,
    sample,
    stage_costs,
    summarise,
    unique_records,
)
from shared.results.published import Key, Published, check_published, lookup, read_published
from shared.results.spec import ResultSpec, in_repository, parse_spec

if TYPE_CHECKING:
    import pandas

_FLOATS = ("mean", "std", "published", "published_spread", "delta")


def run(spec: dict[str, Any]) -> None:
    """Write tables.json, tables.csv and tables/<experiment>.csv into the folder of the job's
    output.
    """
    tables = build(spec)
    folder = parse_spec(spec).folder
    write_tables(folder / "tables.json", tables)
    write_csv(folder / "tables.csv", tables.cells)
    written = set()
    for experiment in dict.fromkeys(cell.experiment for cell in tables.cells):
        target = folder / "tables" / (re.sub(r"[^\w.-]+", "_", experiment) + ".csv")
        write_csv(target, [cell for cell in tables.cells if cell.experiment == experiment])
        written.add(target)
    # The table of an experiment that the config no longer has would look like a result.
    for old in (folder / "tables").glob("*.csv"):
        if old not in written:
            old.unlink()


def build(spec: dict[str, Any]) -> Tables:
    """Tables of a job spec. Raises ConfigError for unknown names and units that do not match."""
    typed = parse_spec(spec)
    published = read_published(in_repository(typed.published_csv)) if typed.published_csv else {}
    check_published(published, typed)
    found = gather(typed)
    cells = []
    for experiment, table in typed.experiments.items():
        for setting in table.settings:
            cells += _setting_cells(typed, experiment, setting, found, published)
    return Tables(
        paper=typed.paper,
        scale=typed.scale,
        title=typed.title,
        reference=typed.reference,
        cells=cells,
        summary={**summarise(found), **stage_costs(typed)},
        provenance=merged_provenance(unique_records(found)),
        labels=_labels(typed),
    )


def _labels(spec: ResultSpec) -> dict[str, dict[str, str]]:
    experiments = spec.experiments.items()
    return {
        "experiment": {name: table.title for name, table in experiments},
        "setting": {f"{n}/{key}": s.label or key for n, t in experiments for key, s in t.settings.items()},
        "row": {f"{n}/{key}": r.label or key for n, t in experiments for key, r in t.rows.items()},
        "metric": {metric.name: metric.label or metric.name for metric in spec.metrics},
    }


def _setting_cells(
    spec: ResultSpec,
    experiment: str,
    setting: str,
    found: dict[Place, Gathered],
    published: dict[Key, Published],
) -> list[TableCell]:
    """Cells of every row of one setting: listed metrics first, then whatever else was measured or
    derived, and costs.
    """
    table = spec.experiments[experiment]
    rows = {row: found[experiment, setting, row] for row in table.rows}
    where = f"{experiment} / {setting}"
    why_not = table.settings[setting].why_not or table.note
    cells = []
    for row, gathered in rows.items():
        for metric in _metrics_of(spec, experiment):
            known = spec.metric(metric)
            if isinstance(known, DerivedSpec):
                cell = derived_cell(spec, where, known, gathered, rows)
            else:
                cell = _cell_of(gathered, metric, sample(spec, gathered, metric, f"{where} / {row}"))
            listed = metric in table.metrics
            if not listed and cell.status != MEASURED:
                continue
            cell = replace(
                cell,
                experiment=experiment,
                setting=setting,
                row=row,
                unit=known.unit if known else "",
                better=known.better if known else "",
                listed=listed,
                comparable=spec.is_comparable(experiment, setting),
                reason=table.rows[row].why_not or why_not if cell.status == NOT_RUN else cell.reason,
            )
            number = lookup(published, spec, experiment, setting, row, metric)
            cells.append(_beside(cell, number, spec) if number else cell)
    return cells


def _metrics_of(spec: ResultSpec, experiment: str) -> list[str]:
    listed = spec.experiments[experiment].metrics
    return list(dict.fromkeys(listed + spec.metric_names()))


def _cell_of(gathered: Gathered, metric: str, values: Sample) -> TableCell:
    """A cell without its place, from its per-seed values."""
    mean, std = mean_and_std(values.values())
    cell = TableCell("", "", "", metric, mean=mean, std=std, n=len(values), values=values)
    if gathered.status != MEASURED:
        return replace(cell, status=gathered.status, reason=gathered.reason)
    lacking = sorted(set(gathered.records) - set(values))
    if not values:
        return replace(cell, status=MISSING, reason=f"the record holds no {metric}")
    not_computed = f"no {metric} for seeds {', '.join(map(str, lacking))}" if lacking else ""
    return replace(cell, reason="; ".join(filter(None, [gathered.reason, not_computed])))


def _beside(cell: TableCell, number: Published, spec: ResultSpec) -> TableCell:
    """The cell with its published number, in the cell's unit."""
    where = f"{spec.published_csv}, line {number.line}, metric {number.metric}"
    value = convert(number.value, number.unit, cell.unit, where)
    spread = None if number.spread is None else convert(number.spread, number.unit, cell.unit, where)
    cell = replace(
        cell,
        published=value,
        published_spread=spread,
        checked=number.checked,
        mark=number.mark,
        source=number.source,
    )
    if cell.mean is None:
        return cell
    compared = compare(cell.mean, cell.std, value, spread)
    return replace(cell, delta=compared.delta, inside=compared.inside)


def frame(cells: list[TableCell]) -> "pandas.DataFrame":
    """The long table as a data frame: one line a cell, columns `cells.COLUMNS`; `values` holds
    dicts seed -> value.
    """
    import pandas

    table = pandas.DataFrame([asdict(cell) for cell in cells], columns=COLUMNS)
    for column in _FLOATS:
        table[column] = table[column].astype(float)
    return table


def write_csv(path: Path, cells: list[TableCell]) -> None:
    """Write the long table as CSV, without pandas (its import takes longer than all the rest).

    `values` is JSON (seed -> value), None an empty field. Floats read back as the same floats.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in cells:
        line = {**asdict(cell), "values": json.dumps(cell.values)}
        writer.writerow([line[column] for column in COLUMNS])
    write_text(path, stream.getvalue())


def read_csv(path: str | Path) -> list[TableCell]:
    """Read what `write_csv` wrote. Raises RecordError naming file and line."""
    parse: dict[str, Callable[[str], Any]] = {
        **{column: lambda text: float(text) if text else None for column in _FLOATS},
        "n": int,
        "values": lambda text: {int(seed): value for seed, value in json.loads(text).items()},
        "listed": lambda text: text == "True",
        "comparable": lambda text: text == "True",
        "inside": lambda text: text == "True" if text else None,
    }
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames != COLUMNS:
                raise RecordError(f"{path}: not a result table; its columns must be {','.join(COLUMNS)}")
            cells = []
            for item in reader:
                try:
                    cells.append(TableCell(**{key: parse.get(key, str)(text) for key, text in item.items()}))
                except (ValueError, TypeError, AttributeError) as error:
                    raise RecordError(f"{path}, line {reader.line_num}: damaged table line ({error})") from None
            return cells
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None


def load(folder: str | Path) -> Tables:
    """Tables of a finished `table` job, from the paper's results folder at one scale."""
    return read_tables(Path(folder) / "tables.json")
