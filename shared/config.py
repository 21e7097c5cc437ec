"""A paper's configuration: typed, complete at `full`, a delta at every other scale.

`config/full.yaml` is the protocol of the paper. Any other `config/<scale>.yaml` names its `base` and changes values
only. `tuning/<scale>.yaml`, written by the tuner, is laid over its scale, and so over every scale that has it as base.
Everything is checked before a job starts; a mistake is one line: file, experiment, row, key, and the nearest known
name.
"""

import re
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field, model_validator

from shared.errors import ConfigError, nearest
from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.options import Count, Strict, explain
from shared.paths import is_name, paper_slugs, papers_root

# Track -> its protocol module: typed tasks, stages, baselines and metrics, importable without torch.
TRACKS = {
    "classification": "shared.classification.protocol",
    "detection": "shared.detection.protocol",
    "diffusion": "shared.diffusion.protocol",
    "segmentation": "shared.segmentation.protocol",
    "text": "shared.text.protocol",
}


class Seeds(Strict):
    """Pilot seed (tuning only) and test seeds (judging only)."""

    pilot: int = Field(ge=0)
    test: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> "Seeds":
        if len(set(self.test)) != len(self.test):
            raise ValueError("a test seed is listed twice")
        if self.pilot in self.test:
            raise ValueError(f"pilot seed {self.pilot} is also a test seed; tuning would leak into the verdict")
        return self


class Resources(Strict):
    """What one job asks the engine for."""

    threads: Count = 1
    memory_mb: Count = 2000
    runtime_min: Count = 60
    gpu: int = Field(default=0, ge=0)


class Setting(Strict):
    """A column group of a table: one task, with the setting's own changes laid over it. A study's has no task."""

    label: str
    task: str | None = None
    change: dict[str, Any] = {}
    options: dict[str, Any] = {}  # laid over every row's options in it; a row's own `per_setting` wins
    published: str | None = None  # `setting` column of published.csv
    enabled: bool = True
    why_not: str = ""  # shown in the report when the setting is not run at this scale


class Row(Strict):
    """A row of a table: a method and its hyper-parameters."""

    label: str = ""
    method: str = ""
    options: dict[str, Any] = {}
    per_setting: dict[str, dict[str, Any]] = {}  # options that differ in one setting
    like: str = ""  # "E1/FT": start from that row's method and options ...
    like_into: str = ""  # ... or put that row's options under this key (a method that wraps another)
    needs: list[str] = []  # further stages of the task that the method reads by name
    published: str | None = None  # `row` column of published.csv; the row's own name by default
    enabled: bool = True
    why_not: str = ""  # shown in the report when the row is not run at this scale
    grid: dict[str, list[Any]] = {}  # searched on the pilot seed


class Experiment(Strict):
    """A table of the paper: settings x rows -> metrics.

    study: its rows are plain functions `f(options, seed) -> Findings` (`shared.study`), without task and stages.
    track: of its tasks, where it is not the paper's (a paper on classifiers and on diffusion models, say).
    """

    title: str
    track: str | None = None
    study: bool = False
    manifests: list[str] = []  # data that a study reads
    published_table: str | None = None  # `table` column of published.csv
    settings: dict[str, Setting] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    metrics: list[str] = Field(min_length=1)
    seeds: list[int] | None = None  # instead of seeds.test
    note: str = ""


class Tuning(Strict):
    """How rows with a grid are tuned: by which metric, measured or derived, and what changes in the task meanwhile."""

    metric: str
    better: Literal["lower", "higher"] = "lower"
    change: dict[str, Any] = {}


class PaperConfig(Strict):
    """One paper at one scale."""

    title: str
    track: str
    seeds: Seeds
    seeds_per_job: Count = 1
    resources: Resources = Resources()
    stage_resources: Resources = Resources()
    published_data: bool = True  # False: other data than the paper's, so the columns are not comparable
    tuning: Tuning | None = None
    metrics: list[MetricSpec] = []  # that the paper's own methods measure
    derived: list[DerivedSpec] = []  # computed from measured ones when tables are made
    tasks: dict[str, dict[str, Any]] = {}
    experiments: dict[str, Experiment] = Field(min_length=1)
    deviations: list[str] = []

    @model_validator(mode="after")
    def _names(self) -> "PaperConfig":
        for track in self.tracks():
            if track not in TRACKS:
                raise ValueError(f"track '{track}' does not exist{nearest(track, list(TRACKS))}")
        for name, experiment in self.experiments.items():
            for kind, names in (("experiment", [name]), ("setting", experiment.settings), ("row", experiment.rows)):
                for item in names:
                    if not is_name(item):
                        raise ValueError(f"{name}: {kind} '{item}' must be made of letters, digits and _ . + = -")
        return self

    def track_of(self, experiment: str) -> str:
        """Track of an experiment's tasks."""
        return self.experiments[experiment].track or self.track

    def tracks(self) -> list[str]:
        """The paper's own track, then those of single experiments."""
        return list(dict.fromkeys([self.track, *map(self.track_of, self.experiments)]))


class _Loader(yaml.CSafeLoader):
    """YAML with two traps removed: 1e-4 is a number, and a key given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)  # `<<: *anchor`; a key of one's own wins over a merged one
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file safely. Raises ConfigError with file, line and problem."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path} line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or error}") from None


def merge(base: Any, delta: Any) -> Any:
    """Lay `delta` over `base`: mappings merge key by key, everything else is replaced."""
    if isinstance(base, dict) and isinstance(delta, dict):
        return {
            key: merge(base[key], delta[key]) if key in base and key in delta else delta.get(key, base.get(key))
            for key in [*base, *(k for k in delta if k not in base)]
        }
    return delta


def scales(slug: str) -> list[str]:
    """Every scale of a paper: the file names in its config folder."""
    return sorted(path.stem for path in (papers_root() / slug / "config").glob("*.yaml"))


def raw_config(slug: str, scale: str) -> dict[str, Any]:
    """The merged, untyped configuration of a paper at a scale: bases first, then the tuned values."""
    folder = papers_root() / slug
    if not (folder / "config").is_dir():
        raise ConfigError(f"paper '{slug}' does not exist{nearest(slug, paper_slugs())}")
    if scale not in scales(slug):
        raise ConfigError(
            f"papers/{slug}/config/{scale}.yaml: no such scale{nearest(scale, scales(slug))}; "
            f"known: {', '.join(scales(slug))}"
        )
    return _with_base(folder, scale, [])


def _with_base(folder: Path, scale: str, seen: list[str]) -> dict[str, Any]:
    """A scale's values over its base's, each with its own tuned values: a scale inherits what its base was tuned to."""
    path = folder / "config" / f"{scale}.yaml"
    if scale in seen:
        raise ConfigError(f"{path}: base '{scale}' leads back to itself ({' -> '.join([*seen, scale])})")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values")
    base = values.pop("base", None)
    if base:
        values = merge(_with_base(folder, base, [*seen, scale]), values)
    tuned = folder / "tuning" / f"{scale}.yaml"
    return merge(values, read_yaml(tuned) or {}) if tuned.is_file() else values


def load_config(slug: str, scale: str) -> PaperConfig:
    """The typed configuration of a paper. Raises ConfigError: one line with file, key and the nearest known name."""
    values = raw_config(slug, scale)
    try:
        return PaperConfig(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"papers/{slug}/config/{scale}.yaml: {explain(error, PaperConfig)}") from None
