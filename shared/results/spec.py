"""The job spec of the result jobs (table, claims, report, verdict), typed. Pure Python plus
pydantic.

Keys that belong to other jobs are ignored here: the spec is written by the planner, never by hand.
"""

from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ConfigError, nearest
from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.options import explain
from shared.paths import ROOT

# Every record carries its cost; these names make it available to tables and claims like any metric.
COST_UNITS = {"seconds": "s", "steps": "steps", "peak_memory_mb": "MiB"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SettingSpec(_Part):
    """One column block of a published table; one that is not `enabled` says why in `why_not`."""

    label: str = ""
    published: str | None = None
    enabled: bool = True
    why_not: str = ""


class RowSpec(_Part):
    """One row of a table; one that is not run at this scale says why in `why_not`."""

    label: str = ""
    published: str | None = None
    why_not: str = ""
    method: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    per_setting: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ExperimentSpec(_Part):
    title: str
    study: bool = False
    published_table: str | None = None
    settings: dict[str, SettingSpec]
    rows: dict[str, RowSpec]
    metrics: list[str]
    note: str = ""
    seeds: list[int] = Field(default_factory=list)


class CellSpec(_Part):
    """Where one (experiment, setting, row) finds its record; several entries when seeds are split
    over jobs.
    """

    experiment: str
    setting: str
    row: str
    record: str
    error: str | None = None


class ResultSpec(_Part):
    paper: str
    scale: str
    title: str = ""
    track: str = ""
    reference: str | None = None
    metrics: list[MetricSpec] = Field(default_factory=list)
    derived: list[DerivedSpec] = Field(default_factory=list)
    experiments: dict[str, ExperimentSpec]
    cells: list[CellSpec] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    published_csv: str | None = None
    claims_yaml: str | None = None
    figures: list[str] = Field(default_factory=list)
    deviations: list[str] = Field(default_factory=list)
    stages: list[str] = Field(default_factory=list)
    published_data: bool | None = None
    output: str = ""

    @property
    def folder(self) -> Path:
        """Folder of the paper's results at this scale; `output` is that folder or a file in it."""
        path = Path(self.output)
        return path.parent if path.suffix in (".json", ".html", ".md") else path

    def is_comparable(self, experiment: str, setting: str) -> bool:
        """Whether ours and the published number are of the same data.

        The config says so (`published_data`); without it, only equal labels are taken to mean equal
        data. A study has no task whose data a small scale could replace.
        """
        if self.experiments[experiment].study:
            return True
        if self.published_data is not None:
            return self.published_data
        found = self.experiments[experiment].settings[setting]
        return found.published is not None and found.label in ("", found.published)

    def metric(self, name: str) -> MetricSpec | None:
        """The metric `name`: measured, derived or a cost; None if there is none. Records and published numbers are
        converted to its unit."""
        declared = {metric.name: metric for metric in (*self.metrics, *self.derived)}
        if name in declared:
            return declared[name]
        if name in COST_UNITS:
            return MetricSpec(name=name, unit=COST_UNITS[name], better="lower", label=name.replace("_", " "))
        return None

    def metric_names(self) -> list[str]:
        """Every name that a table or a claim may use."""
        return list(dict.fromkeys([*(metric.name for metric in (*self.metrics, *self.derived)), *COST_UNITS]))


def parse_spec(spec: dict[str, Any]) -> ResultSpec:
    """Type a job spec and check its references. Raises ConfigError with key and nearest name."""
    try:
        parsed = ResultSpec.model_validate(spec)
    except pydantic.ValidationError as error:
        raise ConfigError(f"job of {spec.get('paper', '?')}: {explain(error)}") from None
    for name, experiment in parsed.experiments.items():
        for metric in experiment.metrics:
            if parsed.metric(metric) is None:
                hint = nearest(metric, parsed.metric_names())
                raise ConfigError(f"{parsed.paper}, experiment {name}: unknown metric '{metric}'{hint}")
    for cell in parsed.cells:
        check_names(parsed, cell.experiment, cell.setting, cell.row)
    return parsed


def in_repository(path: str | Path) -> Path:
    """A config file of a paper: found beside the code, wherever the working folder is."""
    return ROOT / path


def check_names(spec: ResultSpec, experiment: str, setting: str, row: str, metric: str | None = None) -> None:
    """Raise ConfigError naming the first of the names that the spec does not have, with the nearest
    one.
    """
    if experiment not in spec.experiments:
        raise ConfigError(f"unknown experiment '{experiment}'{nearest(experiment, list(spec.experiments))}")
    found = spec.experiments[experiment]
    if setting not in found.settings:
        raise ConfigError(f"{experiment} has no setting '{setting}'{nearest(setting, list(found.settings))}")
    if row not in found.rows:
        raise ConfigError(f"{experiment} has no row '{row}'{nearest(row, list(found.rows))}")
    if metric is not None and metric not in found.metrics and spec.metric(metric) is None:
        known = list(dict.fromkeys(found.metrics + spec.metric_names()))
        raise ConfigError(f"{experiment} has no metric '{metric}'{nearest(metric, known)}")
