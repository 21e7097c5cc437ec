"""What figures are drawn from: settings with the records of their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shared.results.records import Record
from shared.results.spec import ResultSpec


@dataclass(frozen=True)
class Setting:
    """One setting: what its experiment lists, and records of each row, one a seed. labels: of the rows."""

    experiment: str
    name: str
    title: str
    metrics: Sequence[str]
    rows: Mapping[str, Sequence[Record]]
    labels: Mapping[str, str]

    def shows(self, *metrics: str) -> bool:
        """Whether the experiment lists one of the metrics."""
        return any(metric in self.metrics for metric in metrics)


S = TypeVar("S", bound=Setting)


def settings(spec: ResultSpec, records: Mapping[tuple[str, str, str], Sequence[Record]], kind: type[S]) -> list[S]:
    """Settings with records (`shared.results.gather.cell_records`), each of a track's `kind`."""
    found = []
    for experiment, table in spec.experiments.items():
        labels = {row: described.label or row for row, described in table.rows.items()}
        for name, described in table.settings.items():
            rows = {row: records[experiment, name, row] for row in table.rows if records.get((experiment, name, row))}
            if rows:
                title = f"{experiment}, {described.label or name}"
                found.append(kind(experiment, name, title, table.metrics, rows, labels))
    return found
