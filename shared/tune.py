"""Hyper-parameters: searched on the pilot seed, chosen by one criterion, frozen in a file, judged on other seeds.

    python -m shared.tune salun --scale mini --cores 2

runs the search through the workflow (target `<slug>_tune`, also for SLURM), then writes two files that belong into
the repository: `papers/<slug>/tuning/<scale>.yaml` (the chosen values, laid over the scale's configuration) and
`papers/<slug>/tuning/<scale>.csv` (every point that was tried, with its metrics).
"""

import argparse
import csv
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.errors import RecordError
from shared.files import write_json, write_text
from shared.metrics.declared import DerivedSpec
from shared.paths import papers_root
from shared.results.compare import convert
from shared.results.derived import derived_value
from shared.results.gather import measured
from shared.results.records import read_records


@dataclass(frozen=True)
class Point:
    """One tried combination: the options, the metrics that its score is made of, and its score."""

    experiment: str
    setting: str
    row: str
    options: dict[str, Any]
    metrics: dict[str, float]
    score: float
    chosen: bool = False


def choose(job: dict[str, Any]) -> None:
    """Score every point of the search and write the best of each row into the paper's tuning files."""
    points = [point for search in _with_grid(job) for point in _scored(search, job)]
    folder = papers_root() / job["paper"] / "tuning"
    write_text(folder / f"{job['scale']}.yaml", _values(points, job))
    write_text(folder / f"{job['scale']}.csv", _search_table(points, job))
    write_json(job["output"], {"points": len(points), "chosen": sum(point.chosen for point in points)})


def _with_grid(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [search for search in job["searched"] if any(point["options"] for point in search["points"])]


def _scored(search: dict[str, Any], job: dict[str, Any]) -> list[Point]:
    """Points of one row, the best one marked. Ties go to the earlier grid point, so the choice is repeatable."""
    reference = _reference(search, job)
    points = []
    for point in search["points"]:
        metrics = _metrics(point["record"], job)
        score = criterion(metrics, reference, job)
        points.append(Point(search["experiment"], search["setting"], search["row"], point["options"], metrics, score))
    sign = 1 if job["better"] == "lower" else -1
    best = min(range(len(points)), key=lambda index: sign * points[index].score)
    return [Point(**{**vars(point), "chosen": index == best}) for index, point in enumerate(points)]


def _reference(search: dict[str, Any], job: dict[str, Any]) -> dict[str, float]:
    """Metrics of the row that a derived criterion refers to, in the same experiment and setting; else empty."""
    row = job["derived"]["reference"] if job["derived"] else None
    place = (search["experiment"], search["setting"], row)
    for other in job["searched"]:
        if (other["experiment"], other["setting"], other["row"]) == place:
            return _metrics(other["points"][0]["record"], job)
    return {}


def criterion(metrics: dict[str, float], reference: dict[str, float], job: dict[str, Any]) -> float:
    """Score of a point: a derived metric of its seed and the reference's, or a measured metric."""
    if job["derived"] is None:
        return metrics[job["metric"]]
    return derived_value(DerivedSpec(**job["derived"]), metrics, reference)


def _metrics(path: str, job: dict[str, Any]) -> dict[str, float]:
    """What the criterion is made of, in the declared units. Raises RecordError where the record lacks one."""
    record = read_records(path)[0]
    values = {}
    for name, unit in job["units"].items():
        found = measured(record, name)
        if found is None:
            known = ", ".join(sorted(metric.name for metric in record.metrics))
            raise RecordError(f"{path}: tuning needs the metric '{name}', which is not in this record; known: {known}")
        values[name] = convert(*found, unit, f"{path}, metric {name}")
    return values


def _values(points: list[Point], job: dict[str, Any]) -> str:
    experiments: dict[str, Any] = {}
    for point in points:
        if point.chosen:
            rows = experiments.setdefault(point.experiment, {"rows": {}})["rows"]
            rows.setdefault(point.row, {"per_setting": {}})["per_setting"][point.setting] = point.options
    best = "smallest" if job["better"] == "lower" else "largest"
    head = (
        f"# Chosen by `python -m shared.tune {job['paper']} --scale {job['scale']}` on pilot seed {job['seed']},\n"
        f"# {best} {job['metric']}. The search is in {job['scale']}.csv: change the grid and tune again.\n"
    )
    return head + yaml.safe_dump({"experiments": experiments}, sort_keys=False, allow_unicode=True)


def _search_table(points: list[Point], job: dict[str, Any]) -> str:
    parts = job["derived"]["of"] if job["derived"] else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["experiment", "setting", "row", "options", *parts, job["metric"], "chosen"])
    for point in points:
        options = " ".join(f"{key}={value}" for key, value in point.options.items())
        values = [f"{point.metrics[name]:.4g}" for name in parts]
        writer.writerow(
            [
                point.experiment,
                point.setting,
                point.row,
                options,
                *values,
                f"{point.score:.4g}",
                "yes" if point.chosen else "",
            ]
        )
    return stream.getvalue()


def main() -> int:
    """Search through the workflow, then choose."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slug")
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--cores", type=int, default=2)
    arguments, passed_on = parser.parse_known_args()
    target = f"results/{arguments.slug}/{arguments.scale}/tuned.json"
    Path(target).unlink(missing_ok=True)  # the choice is cheap and always made anew; finished points are kept
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        str(arguments.cores),
        "--config",
        f"scale={arguments.scale}",
        *passed_on,
        "--",
        target,
    ]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print(f"papers/{arguments.slug}/tuning/{arguments.scale}.yaml and .csv are written; commit both")
    return code


if __name__ == "__main__":
    sys.exit(main())
