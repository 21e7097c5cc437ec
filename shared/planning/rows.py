"""What a row is: its method's import path and its complete, validated options, and the typed task of its setting."""

from collections.abc import Mapping
from typing import Any

import pydantic

from shared.config import PaperConfig, Row, Setting, merge
from shared.data.manifest import load_manifest
from shared.errors import ConfigError, nearest
from shared.files import digest
from shared.options import explain, parse_options


class Resolver:
    """Looks rows and tasks up in one paper's configuration. Every mistake is one ConfigError with file and place."""

    def __init__(self, config: PaperConfig, tracks: Mapping[str, Any], file: str) -> None:
        self.config, self.file = config, file
        self._tracks = tracks
        self._manifests: set[str] = set()
        self._tasks: dict[str, Any] = {}
        self._rows: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}

    def track(self, experiment: str) -> Any:
        """Protocol of an experiment's track."""
        return self._tracks[self.config.track_of(experiment)]

    def error(self, experiment: str, text: str) -> ConfigError:
        """A mistake in an experiment of this file."""
        return ConfigError(f"{self.file}: {experiment}: {text}")

    def row(
        self,
        experiment: str,
        setting: str,
        row: str,
        changes: dict[str, Any] | None = None,
        _seen: tuple[str, ...] = (),
    ) -> tuple[str, dict[str, Any]]:
        """Import path and complete options of a row in a setting, `like` followed, `changes` (a grid point) on top."""
        here = f"{experiment}/{row}"
        known = self._rows.get((here, setting)) if changes is None else None
        if known is not None:
            return known
        if here in _seen:
            raise self.error(experiment, f"row '{row}': 'like' leads back to itself")
        method, options = self._unchecked(experiment, setting, row, (*_seen, here))
        if not method:
            raise self.error(experiment, f"row '{row}': no method; give 'method' or 'like'")
        try:
            found = method, parse_options(method, merge(options, changes or {})).model_dump()
        except ConfigError as error:
            raise self.error(experiment, f"row '{row}': {error}") from None
        if changes is None:
            self._rows[here, setting] = found
        return found

    def _unchecked(self, experiment: str, setting: str, name: str, seen: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        row = self.config.experiments[experiment].rows[name]
        settings = self.config.experiments[experiment].settings
        shared = settings[setting].options if setting in settings else {}
        own = merge(merge(row.options, shared), row.per_setting.get(setting, {}))
        method = self._method_path(experiment, name, row)
        if not row.like:
            return method, own
        liked_method, liked = self.row(*self._liked(experiment, setting, name, row), _seen=seen)
        if row.like_into:
            return method or liked_method, merge({row.like_into: liked}, own)
        if method and method != liked_method:
            raise self.error(
                experiment, f"row '{name}': 'like' takes the method of {row.like}; drop 'method' or add 'like_into'"
            )
        return liked_method, merge(liked, own)

    def needs(self, experiment: str, name: str) -> list[str]:
        """Further stages that a row's method reads: its own, and those of the row that it is like."""
        row = self.config.experiments[experiment].rows[name]
        liked = self.needs(*row.like.split("/", 1)) if row.like else []
        return sorted({*row.needs, *liked})

    def _method_path(self, experiment: str, name: str, row: Row) -> str:
        if not row.method or ":" in row.method:
            return row.method
        methods = self.track(experiment).METHODS
        if row.method not in methods:
            hint = nearest(row.method, list(methods))
            raise self.error(
                experiment,
                f"row '{name}': method '{row.method}' does not exist{hint}; "
                "a method of a paper is 'papers.<slug>.method:<function>'",
            )
        return str(methods[row.method])

    def _liked(self, experiment: str, setting: str, name: str, row: Row) -> tuple[str, str, str]:
        other, _, other_row = row.like.partition("/")
        found = self.config.experiments.get(other)
        if found is None or other_row not in found.rows:
            known = [f"{e}/{r}" for e, x in self.config.experiments.items() for r in x.rows]
            raise self.error(experiment, f"row '{name}': like '{row.like}' names no row{nearest(row.like, known)}")
        return other, setting, other_row

    def task(self, experiment: str, setting: Setting, change: dict[str, Any] | None = None) -> Any:
        """The typed task of a setting, with further changes (tuning) laid over it; its data sets exist."""
        if setting.task is None or setting.task not in self.config.tasks:
            hint = nearest(str(setting.task), list(self.config.tasks))
            raise self.error(experiment, f"task '{setting.task}' does not exist{hint}")
        key = digest([self.config.track_of(experiment), setting.task, setting.change, change])
        if key not in self._tasks:
            self._tasks[key] = self._new_task(experiment, setting, change)
        return self._tasks[key]

    def _new_task(self, experiment: str, setting: Setting, change: dict[str, Any] | None) -> Any:
        values = merge(merge(self.config.tasks[str(setting.task)], setting.change), change or {})
        track = self.track(experiment)
        try:
            task = track.Task(**values)
        except pydantic.ValidationError as error:
            problem = explain(error, track.Task)
            raise self.error(experiment, f"task '{setting.task}': {problem}") from None
        for name in track.manifests(task):
            self.check_manifest(experiment, name)
        return task

    def check_manifest(self, experiment: str, name: str) -> None:
        """Raise ConfigError unless the data set exists."""
        if name in self._manifests:
            return
        try:
            load_manifest(name)
        except ConfigError as error:
            raise self.error(experiment, str(error)) from None
        self._manifests.add(name)
