"""Published numbers: `published.csv` of a paper, read and checked. Plain Python."""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigError, nearest
from shared.results.compare import convert
from shared.results.spec import ResultSpec

HEADER = [
    "table",
    "setting",
    "row",
    "metric",
    "value",
    "spread",
    "unit",
    "better",
    "source",
    "checked",
]
DIRECTIONS = ("higher", "lower", "closest_to_retrain", "")
CHECKED = ("read", "recalled")
_FIGURE_READING = re.compile(r"read (off|from) the|plotted|vector figure", re.IGNORECASE)

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Published:
    """One published number. checked: "read" (re-read in a document) or "recalled" (nobody has)."""

    table: str
    setting: str
    row: str
    metric: str
    value: float
    spread: float | None
    unit: str
    better: str
    source: str
    checked: str
    line: int

    @property
    def key(self) -> Key:
        return (self.table, self.setting, self.row, self.metric)

    @property
    def mark(self) -> str:
        """What a reader must know before trusting the number: "", "recalled", "third-party" or
        "figure".
        """
        if self.checked == "recalled":
            return "recalled"
        if self.source.lower().startswith("third-party"):
            return "third-party"
        return "figure" if _FIGURE_READING.search(self.source) else ""


def read_published(path: str | Path) -> dict[Key, Published]:
    """Read `published.csv`, keyed by (table, setting, row, metric); empty if it has a header only.

    Raises ConfigError naming file, line and column for a wrong header, a missing or extra field, a
    value that is no finite number, an unknown direction or check mark, and for a duplicate.
    """
    numbers: dict[Key, Published] = {}
    for line, fields in _lines(Path(path)):
        number = _number(path, line, fields)
        if number.key in numbers:
            first = numbers[number.key].line
            raise ConfigError(
                f"{path}, line {line}, column 'metric': same table, setting, row and metric as line {first}"
            )
        numbers[number.key] = number
    return numbers


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a paper without published numbers keeps the header line") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        for column, (found, wanted) in enumerate(zip(header, HEADER, strict=False), start=1):
            if found != wanted:
                raise ConfigError(f"{path}, line 1, column {column}: '{found}' where '{wanted}' belongs")
        if len(header) != len(HEADER):
            raise ConfigError(f"{path}, line 1: the header must be {','.join(HEADER)}")
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}; quote fields that hold a comma") from None


def _number(path: str | Path, line: int, fields: list[str]) -> Published:
    def fail(column: str, problem: str) -> ConfigError:
        return ConfigError(f"{path}, line {line}, column '{column}': {problem}")

    if len(fields) != len(HEADER):
        raise fail(
            HEADER[min(len(fields), len(HEADER) - 1)],
            f"{len(fields)} fields, expected {len(HEADER)}",
        )
    item = dict(zip(HEADER, fields, strict=True))
    for column in ("table", "setting", "row", "metric", "source"):
        if not item[column].strip():
            raise fail(column, "empty")
    if item["better"] not in DIRECTIONS:
        raise fail("better", f"'{item['better']}' is not one of {', '.join(DIRECTIONS[:-1])} or empty")
    if item["checked"] not in CHECKED:
        raise fail("checked", f"'{item['checked']}' is neither 'read' nor 'recalled'")
    numeric: dict[str, float | None] = {}
    for column in ("value", "spread"):
        try:
            numeric[column] = float(item[column]) if item[column] or column == "value" else None
        except ValueError:
            raise fail(column, f"'{item[column]}' is not a number") from None
        if numeric[column] is not None and not math.isfinite(numeric[column] or 0.0):
            raise fail(column, f"'{item[column]}' is not finite; leave the line out")
    if (numeric["spread"] or 0.0) < 0:
        raise fail("spread", f"'{item['spread']}' is negative")
    return Published(
        item["table"],
        item["setting"],
        item["row"],
        item["metric"],
        numeric["value"] or 0.0,
        numeric["spread"],
        item["unit"],
        item["better"],
        item["source"],
        item["checked"],
        line,
    )


def lookup(
    numbers: dict[Key, Published],
    spec: ResultSpec,
    experiment: str,
    setting: str,
    row: str,
    metric: str,
) -> Published | None:
    """The published number beside one of our cells, or None."""
    table = spec.experiments[experiment]
    names = (table.published_table, table.settings[setting].published, table.rows[row].published)
    if None in names:
        return None
    return numbers.get((names[0] or "", names[1] or "", names[2] or "", metric))


def check_published(numbers: dict[Key, Published], spec: ResultSpec) -> None:
    """Check at plan time that the config's published names exist and that every unit can be
    converted.

    A misspelt name would otherwise show as a table without published numbers, which nobody notices.
    """
    where = spec.published_csv
    for name, experiment in spec.experiments.items():
        if not experiment.published_table:
            continue
        of_table = [number for number in numbers.values() if number.table == experiment.published_table]
        if not of_table:
            hint = nearest(experiment.published_table, {number.table for number in numbers.values()})
            raise ConfigError(f"{where}: no table '{experiment.published_table}' for {name}{hint}")
        settings = [setting.published for setting in experiment.settings.values()]
        # A row's published name defaults to its key, and rows of our own have no published number.
        rows = [row.published for key, row in experiment.rows.items() if row.published != key]
        _check_known(f"{where}: {name}", "setting", settings, of_table)
        _check_known(f"{where}: {name}", "row", rows, of_table)
        used_settings = {setting.published for setting in experiment.settings.values()}
        for number in of_table:
            metric = spec.metric(number.metric)
            if metric is not None and number.metric in experiment.metrics and number.setting in used_settings:
                convert(
                    number.value,
                    number.unit,
                    metric.unit,
                    f"{where}, line {number.line}, metric {number.metric}",
                )


def _check_known(where: str, kind: str, wanted: list[str | None], of_table: list[Published]) -> None:
    known = {getattr(number, kind) for number in of_table}
    for name in wanted:
        if name is not None and name not in known:
            table = of_table[0].table
            raise ConfigError(f"{where}: '{table}' has no {kind} '{name}'{nearest(name, known)}")
