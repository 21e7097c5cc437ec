"""Cells of a result table and their JSON file. No pandas: claims, verdicts and diffs read tables
without it.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from shared.errors import RecordError
from shared.files import write_json

SCHEMA = 1
MEASURED, MISSING, FAILED, NOT_RUN = "measured", "missing", "failed", "not run"

CellKey = tuple[str, str, str, str]


@dataclass(frozen=True)
class TableCell:
    """One number of one table.

    status: "measured", "missing" (no record), "failed" (the job left an error), "not run" (not
    planned at this scale). A measured cell whose `reason` is not empty lacks some of its seeds.
    values: seed -> value; mean over the seeds (a gap's mean is the gap of the means, see `tables`);
    std with n - 1, None for one seed; delta and inside: see `compare`; comparable: ours and the
    published number are of the same data; listed: shown in the paper's table.
    """

    experiment: str
    setting: str
    row: str
    metric: str
    unit: str = ""
    better: str = ""
    listed: bool = True
    status: str = MEASURED
    reason: str = ""
    mean: float | None = None
    std: float | None = None
    n: int = 0
    values: dict[int, float] = field(default_factory=dict)
    published: float | None = None
    published_spread: float | None = None
    checked: str = ""
    mark: str = ""
    source: str = ""
    comparable: bool = True
    delta: float | None = None
    inside: bool | None = None

    @property
    def key(self) -> CellKey:
        return (self.experiment, self.setting, self.row, self.metric)

    @property
    def is_complete(self) -> bool:
        """Measured with every seed, or not planned here."""
        return self.status == NOT_RUN or (self.status == MEASURED and not self.reason)


COLUMNS = [column.name for column in fields(TableCell)]


@dataclass(frozen=True)
class Tables:
    """All cells of one paper at one scale. summary: seconds, peak_memory_mb, commit, dirty, date,
    devices, ...; provenance: dotted key -> the distinct values found in the records; labels: names
    as the report shows them.
    """

    paper: str
    scale: str
    title: str
    reference: str | None
    cells: list[TableCell]
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)

    def by_key(self) -> dict[CellKey, TableCell]:
        return {cell.key: cell for cell in self.cells}

    def label(self, kind: str, name: str) -> str:
        """Label of an experiment, setting ("E1/random10"), row ("E1/SalUn") or metric; its last
        name without one.
        """
        return self.labels.get(kind, {}).get(name) or name.rpartition("/")[2]


def mean_and_std(values: Iterable[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1); None without values, std also for a single value."""
    numbers = list(values)
    if not numbers:
        return None, None
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))


def write_tables(path: str | Path, tables: Tables) -> None:
    """Write tables.json atomically."""
    content = asdict(tables)
    write_json(path, {"schema": SCHEMA, **content})


def read_tables(path: str | Path) -> Tables:
    """Read tables.json. Raises RecordError naming the file when it is missing, damaged or of
    another schema.
    """
    content = read_result_file(path, SCHEMA)
    try:
        cells = [TableCell(**{**cell, "values": _seeds(cell["values"])}) for cell in content.pop("cells")]
        return Tables(cells=cells, **content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path}: damaged table ({type(error).__name__}: {error}); make the table again") from None


def read_result_file(path: str | Path, schema: int) -> dict[str, Any]:
    """Read a JSON result file of this code's schema, without the schema key."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; run the workflow for its paper") from None
    except (ValueError, OSError) as error:
        raise RecordError(f"{path}: damaged ({error}); delete the file and run the workflow again") from None
    if not isinstance(content, dict) or content.pop("schema", None) != schema:
        raise RecordError(f"{path}: not a result file of schema {schema}; delete it and run the workflow again")
    return content


def _seeds(values: dict[str, float]) -> dict[int, float]:
    return {int(seed): value for seed, value in values.items()}
