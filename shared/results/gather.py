"""From record files to the samples of each cell: what was measured, what is missing and why. Plain
Python.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.errors import RecordError
from shared.results.cells import FAILED, MEASURED, MISSING, NOT_RUN
from shared.results.compare import convert
from shared.results.records import Record, read_records
from shared.results.spec import COST_UNITS, ResultSpec, parse_spec

Place = tuple[str, str, str]  # experiment, setting, row
Sample = dict[int, float]  # seed -> value


@dataclass
class Gathered:
    """Records of one (experiment, setting, row). problems: (status, reason) of each job without a
    record.
    """

    planned: bool = False
    records: dict[int, Record] = field(default_factory=dict)
    dates: dict[int, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> str:
        if self.records:
            return MEASURED
        if not self.planned:
            return NOT_RUN
        return FAILED if any(status == FAILED for status, _ in self.problems) else MISSING

    @property
    def reason(self) -> str:
        by_weight = sorted(self.problems, key=lambda problem: problem[0] == MISSING)
        reasons = list(dict.fromkeys(reason for _, reason in by_weight))
        # Ten seeds without a record are one fact, not ten.
        return reasons[0] + f" (and {len(reasons) - 1} more)" * (len(reasons) > 1) if reasons else ""


def gather(spec: ResultSpec) -> dict[Place, Gathered]:
    """Read every record that the spec's cells name. A record that cannot be used is a failed cell,
    not an abort.
    """
    found = {
        (name, setting, row): Gathered()
        for name, experiment in spec.experiments.items()
        for setting in experiment.settings
        for row in experiment.rows
    }
    for cell in spec.cells:
        place = found[cell.experiment, cell.setting, cell.row]
        place.planned = True
        if not Path(cell.record).exists():
            place.problems.append(_without_record(spec, cell.record, cell.error))
            continue
        try:
            records = _records_of_cell(spec, cell.record, (cell.experiment, cell.setting, cell.row))
        except RecordError as error:
            place.problems.append((FAILED, str(error)))
            continue
        for record in records:
            if record.seed in place.records:
                place.problems.append((FAILED, f"{cell.record}: seed {record.seed} is in another record too"))
            place.records[record.seed] = record
            place.dates[record.seed] = _date(record, cell.record)
    for (name, _, _), place in found.items():
        lacking = [seed for seed in spec.experiments[name].seeds if seed not in place.records]
        if place.records and lacking and not place.problems:
            place.problems.append((MISSING, f"no record of seeds {', '.join(map(str, lacking))}"))
    return found


def _date(record: Record, path: str) -> str:
    """When the record was made (ISO, UTC): what its provenance says, else the time stamp of its
    file.
    """
    stamp = datetime.fromtimestamp(int(Path(path).stat().st_mtime), UTC)
    return str(record.provenance.get("date") or stamp.isoformat())


def cell_records(spec: dict[str, Any]) -> dict[Place, list[Record]]:
    """Records of every measured (experiment, setting, row), by seed: for figures that draw a
    record's extras.
    """
    return {
        place: [item.records[seed] for seed in sorted(item.records)]
        for place, item in gather(parse_spec(spec)).items()
        if item.records
    }


def _records_of_cell(spec: ResultSpec, path: str, place: Place) -> list[Record]:
    """The cell's records in a file. One job may serve several cells, so its records may carry
    another's name.
    """
    records = read_records(path)
    for record in records:
        if (record.paper, record.scale) != (spec.paper, spec.scale):
            raise RecordError(
                f"{path}: record of {record.paper} at {record.scale}, not of {spec.paper} at {spec.scale}"
            )
    names = {(record.experiment, record.setting, record.row) for record in records}
    if len(names) > 1:
        records = [r for r in records if (r.experiment, r.setting, r.row) == place]
    if not records:
        raise RecordError(f"{path}: holds no record of {' / '.join(place)}")
    seeds = [record.seed for record in records]
    if len(set(seeds)) < len(seeds):
        raise RecordError(f"{path}: holds a seed twice ({', '.join(map(str, seeds))})")
    return records


def _without_record(spec: ResultSpec, record: str, error: str | None) -> tuple[str, str]:
    if error is not None and Path(error).exists():
        return FAILED, _reason_in(error)
    # A row whose stage failed never started, so the reason lies with the stage.
    stage_errors = [Path(stage).with_suffix(".error.json") for stage in spec.stages]
    failed = [f"a stage failed: {_reason_in(path)}" for path in stage_errors if path.exists()]
    return (FAILED, failed[0]) if failed else (MISSING, f"no record {record}")


def _reason_in(path: str | Path) -> str:
    """What an error file says: its message, and the log if it names one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        message, log = " ".join(str(content["message"]).split()), content.get("log")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        return f"the job failed; its error file {path} cannot be read ({problem})"
    return f"{message} (log: {log})" if log else message


def sample(spec: ResultSpec, found: Gathered, metric: str, where: str) -> Sample:
    """Values of one metric by seed, in the unit of the spec. Seeds whose record lacks the metric
    are left out.
    """
    wanted = spec.metric(metric)
    values: Sample = {}
    for seed, record in sorted(found.records.items()):
        value = measured(record, metric)
        if value is not None:
            unit = wanted.unit if wanted is not None else value[1]
            values[seed] = convert(value[0], value[1], unit, f"{where}, seed {seed}, metric {metric}")
    return values


def measured(record: Record, metric: str) -> tuple[float, str] | None:
    """Value and unit of a metric or cost of a record; None where it is not there."""
    value = next(((m.value, m.unit) for m in record.metrics if m.name == metric), None)
    if value is None and metric in COST_UNITS:
        return float(getattr(record.cost, metric)), COST_UNITS[metric]
    return value


def summarise(found: dict[Place, Gathered]) -> dict[str, Any]:
    """Cost and origin of all row records. Each record counts once, however many cells it serves.

    date and commit are those of the newest record, not of the report: the same records give the
    same report.
    """
    records = unique_records(found)
    dates = sorted(date for gathered in found.values() for date in gathered.dates.values())
    dated = [(d, r) for g in found.values() for d, r in zip(g.dates, g.records.values(), strict=False)]
    newest = max(dated, key=lambda pair: pair[0])[1] if dated else None
    return {
        "num_records": len(records),
        "seconds": round(sum(r.cost.seconds for r in records), 3),
        "steps": sum(r.cost.steps for r in records),
        "peak_memory_mb": round(max((r.cost.peak_memory_mb for r in records), default=0.0), 1),
        "devices": sorted({r.cost.device for r in records}),
        "seeds": sorted({r.seed for r in records}),
        "commit": str(newest.provenance.get("commit", "")) if newest else "",
        "commits": sorted({str(r.provenance["commit"]) for r in records if r.provenance.get("commit")}),
        "dirty": any(bool(r.provenance.get("dirty")) for r in records),
        "first_date": dates[0] if dates else "",
        "date": dates[-1] if dates else "",
    }


def stage_costs(spec: ResultSpec) -> dict[str, Any]:
    """Cost of the shared stages that are there: models that several rows, seeds and papers use,
    computed once.
    """
    stages = []
    for path in spec.stages:
        if Path(path).exists():
            record = read_records(path)[0]
            stages.append({"name": record.row, "seed": record.seed, **asdict(record.cost)})
    return {"stages": stages, "stage_seconds": round(sum(stage["seconds"] for stage in stages), 3)}


def unique_records(found: dict[Place, Gathered]) -> list[Record]:
    """Every record once: a job that serves two cells is read twice but was paid for once."""
    unique: dict[tuple[str, str, str, int], Record] = {}
    for gathered in found.values():
        for record in gathered.records.values():
            unique[record.experiment, record.setting, record.row, record.seed] = record
    return list(unique.values())


def merged_provenance(records: list[Record], skip: tuple[str, ...] = ("date",)) -> dict[str, list[str]]:
    """Dotted provenance key -> its distinct values over all records, sorted."""
    merged: dict[str, set[str]] = {}
    for record in records:
        for key, value in _flat(record.provenance):
            if key not in skip:
                merged.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(merged.items())}


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key in value for pair in _flat(value[key], f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value if isinstance(value, str) else json.dumps(value))]
