"""Records: what a job leaves behind. One JSON file a job, one record a (row, setting, seed).

A record never stores a NaN: a metric that could not be computed is left out and shows as "not measured".
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import RecordError
from shared.files import write_json

SCHEMA = 1


@dataclass(frozen=True)
class Metric:
    """One measured number.

    unit: "%" (0..100), "fraction" (0..1), "s", "min", "steps", "MB", ... as shown in the report.
    better: "higher", "lower", "closest_to_retrain" or "" (no direction).
    """

    name: str
    value: float
    unit: str = ""
    better: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise RecordError(f"metric {self.name} is {self.value}: leave it out instead of storing it")


@dataclass(frozen=True)
class Cost:
    """What a run took. seconds: wall; steps: forward/backward batches; peak_memory_mb: MiB of resident
    memory of the process (CPU) or of allocated device memory (GPU); device: "cpu" or the GPU's name."""

    seconds: float
    steps: int
    peak_memory_mb: float
    device: str


@dataclass(frozen=True)
class Record:
    """One (row, setting, seed) of one experiment, or one stage (experiment "stage", row = stage name)."""

    paper: str
    scale: str
    experiment: str
    setting: str
    row: str
    seed: int
    metrics: list[Metric]
    cost: Cost
    provenance: dict[str, Any] = field(default_factory=dict)
    # Small JSON values for figures (curves, histograms); never images of people, never prompts.
    extras: dict[str, Any] = field(default_factory=dict)

    def metric(self, name: str) -> float | None:
        """Value of the metric `name`, or None if this record does not hold it."""
        return next((m.value for m in self.metrics if m.name == name), None)


def write_records(path: str | Path, records: list[Record]) -> None:
    """Write a job's records atomically."""
    write_json(path, {"schema": SCHEMA, "records": [asdict(record) for record in records]})


def read_records(path: str | Path) -> list[Record]:
    """Read a job's records. Raises RecordError naming the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise RecordError(f"{path}: schema {content['schema']}, this code reads {SCHEMA}; delete it and run again")
        return [_record(item) for item in content["records"]]
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; run the workflow for its paper") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path}: damaged record ({type(error).__name__}: {error}); delete the file and run the workflow again"
        ) from None


def _record(item: dict[str, Any]) -> Record:
    values = dict(item)
    values["metrics"] = [Metric(**metric) for metric in values["metrics"]]
    values["cost"] = Cost(**values["cost"])
    return Record(**values)
