"""The metrics that a paper's tables, claims and tuning may name: its track's, its own, and what every record costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.config import PaperConfig
from shared.errors import ConfigError, nearest
from shared.files import file_sha256
from shared.metrics.declared import DerivedSpec, MetricSpec, function_file
from shared.results.spec import COST_UNITS


class PaperMetrics:
    """Declared metrics of one paper, checked. Every mistake is one ConfigError with file, section and name."""

    def __init__(self, config: PaperConfig, tracks: Mapping[str, Any], file: str) -> None:
        self.file = file
        measured = self._of_tracks({n: [*t.METRICS, *t.EXTRA_METRICS] for n, t in tracks.items()})
        of_tracks: list[DerivedSpec] = self._of_tracks({name: track.DERIVED for name, track in tracks.items()})
        self.sources: dict[str, str] = {}  # function of a derived metric -> SHA-256 of its file
        self._track: list[MetricSpec] = [*measured, *of_tracks]
        self.measured: list[MetricSpec] = [*measured, *config.metrics]
        self.derived: list[DerivedSpec] = [*of_tracks, *config.derived]
        self.names = list(dict.fromkeys([*(metric.name for metric in (*self.measured, *self.derived)), *COST_UNITS]))
        self._check_names(config)
        for derived in config.derived:
            self._check_derived(derived, config)
        if config.tuning and config.tuning.metric not in self.names:
            raise self._error("tuning", self.unknown(config.tuning.metric))

    def _of_tracks(self, by_track: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Metrics of all tracks of a paper; a name must mean the same in each of them."""
        found: dict[str, tuple[str, Any]] = {}
        for track, metrics in by_track.items():
            for metric in metrics:
                other, known = found.setdefault(metric.name, (track, metric))
                if known != metric:
                    raise self._error("track", f"metric '{metric.name}' means one thing in {other}, another in {track}")
        return [metric for _, metric in found.values()]

    def unknown(self, name: str) -> str:
        """What is wrong with a name that is none of ours."""
        return f"metric '{name}' does not exist{nearest(name, self.names)}"

    def units(self, name: str) -> dict[str, str]:
        """Unit of a measured metric or cost, or of each metric that a derived one is computed from."""
        derived = self.find_derived(name)
        declared = {**COST_UNITS, **{metric.name: metric.unit for metric in self.measured}}
        return {part: declared[part] for part in (derived.of if derived else [name])}

    def find_derived(self, name: str) -> DerivedSpec | None:
        """The derived metric `name`, if it is one."""
        return next((derived for derived in self.derived if derived.name == name), None)

    def _error(self, section: str, text: str) -> ConfigError:
        return ConfigError(f"{self.file}: {section}: {text}")

    def _check_names(self, config: PaperConfig) -> None:
        taken = {**dict.fromkeys(COST_UNITS, "every record"), **{metric.name: "the track" for metric in self._track}}
        for section, metrics in (("metrics", config.metrics), ("derived", config.derived)):
            for metric in metrics:
                if metric.name in taken:
                    raise self._error(
                        section, f"'{metric.name}' is a metric of {taken[metric.name]} already; rename it"
                    )
                taken[metric.name] = "this paper"

    def _check_derived(self, derived: DerivedSpec, config: PaperConfig) -> None:
        measured = [*(metric.name for metric in self.measured), *COST_UNITS]
        for part in derived.of:
            if self.find_derived(part):
                raise self._error("derived", f"'{derived.name}': of: '{part}' is itself derived; name measured metrics")
            if part not in measured:
                hint = nearest(part, measured)
                raise self._error("derived", f"'{derived.name}': of: metric '{part}' does not exist{hint}")
        rows = list(dict.fromkeys(row for experiment in config.experiments.values() for row in experiment.rows))
        if derived.reference is not None and derived.reference not in rows:
            hint = nearest(derived.reference, rows)
            raise self._error("derived", f"'{derived.name}': reference '{derived.reference}' names no row{hint}")
        try:
            self.sources[derived.function] = file_sha256(function_file(derived.function))
        except ConfigError as error:
            raise self._error("derived", f"'{derived.name}': {error}") from None
