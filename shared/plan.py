"""The plan of a paper: from its typed configuration to self-contained job files. Imports neither torch nor pandas.

Kinds of job: `stage` (an artifact that rows need, keyed by the digest of its recipe and shared between papers), `row`
(one method in one setting, one or more seeds), and one `spec` a scale, from which table, claims, report and verdict
are made. Job files are rewritten only when their content changes: for the engine, a newer file means a changed job.
"""

import functools
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.config import TRACKS, Experiment, PaperConfig, Resources, load_config
from shared.data.manifest import load_manifest
from shared.data.pull import data_root
from shared.errors import nearest
from shared.files import digest, write_json_if_changed
from shared.options import source_of
from shared.paths import error_file, papers_root, results_of, shown, stage_folder
from shared.plan_rows import Resolver
from shared.plan_tuning import Search, searches, write_search


@dataclass(frozen=True)
class Job:
    """A job file with what it hangs on. `path` holds `content`; the job is done when `output` exists.

    Resources are not part of the content: asking for more memory must not re-run a finished job.
    """

    path: Path
    output: Path
    content: dict[str, Any]
    inputs: list[str] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Cell:
    """One (experiment, setting, row) of a table and the row jobs whose records fill it."""

    experiment: str
    setting: str
    row: str
    jobs: list[Job]


class Plan:
    """Everything that has to happen for one paper at one scale."""

    def __init__(self, slug: str, scale: str) -> None:
        self.slug, self.scale = slug, scale
        self.config: PaperConfig = load_config(slug, scale)
        self.track = importlib.import_module(TRACKS[self.config.track])
        self.resolver = Resolver(self.config, self.track, f"papers/{slug}/config/{scale}.yaml")
        self.folder = results_of(slug, scale)
        self.stages: dict[str, Job] = {}
        self.rows: dict[str, Job] = {}  # by digest of the recipe: equal cells of two tables are computed once
        self.cells = [
            cell for name, experiment in self.config.experiments.items() for cell in self._cells(name, experiment)
        ]
        self.spec = self._spec()

    # ---- rows and stages

    def _cells(self, name: str, experiment: Experiment) -> list[Cell]:
        self._check(name, experiment)
        seeds = experiment.seeds or self.config.seeds.test
        return [
            self._cell(name, setting, row, seeds)
            for setting, described in experiment.settings.items()
            if described.enabled
            for row in experiment.rows
        ]

    def _cell(self, experiment: str, setting: str, row: str, seeds: list[int]) -> Cell:
        method, options = self.resolver.row(experiment, setting, row)
        task = self.resolver.task(experiment, self.config.experiments[experiment].settings[setting])
        size = self.config.seeds_per_job
        jobs = []
        for group in (seeds[i : i + size] for i in range(0, len(seeds), size)):
            recipe = self.recipe(method, options, task, group)
            key = digest(recipe)
            if key not in self.rows:
                self.rows[key] = self.new_row_job(f"{experiment}/{setting}/{row}/{_span(group)}", recipe, task)
            jobs.append(self.rows[key])
        return Cell(experiment, setting, row, jobs)

    def recipe(self, method: str, options: dict[str, Any], task: Any, seeds: list[int]) -> dict[str, Any]:
        """What decides a row's numbers."""
        return {
            "track": self.config.track,
            "method": method,
            "options": options,
            "task": task.model_dump(),
            "seeds": seeds,
        }

    def new_row_job(self, name: str, recipe: dict[str, Any], task: Any) -> Job:
        """The job of a row; `name` is experiment/setting/row/seeds. Its stages enter the plan."""
        experiment, setting, row, _ = name.split("/", 3)
        wanted = self.track.stages_needed(recipe["method"])
        stages = {
            seed: {
                kind: self._stage_job(kind, stage, task)
                for kind, stage in self.track.stages(task, seed).items()
                if kind in wanted
            }
            for seed in recipe["seeds"]
        }
        output = self.folder / "records" / f"{name}.json"
        content = {
            "kind": "row",
            "paper": self.slug,
            "scale": self.scale,
            "experiment": experiment,
            "setting": setting,
            "row": row,
            **recipe,
            "run": self.track.RUN_ROW,
            "manifests": self.track.manifests(task),
            "stages": {str(seed): {kind: job.content for kind, job in kinds.items()} for seed, kinds in stages.items()},
            "output": str(output),
        }
        inputs = [
            shown(source_of(recipe["method"])),
            *self._pulled(task),
            *(str(job.output) for kinds in stages.values() for job in kinds.values()),
        ]
        return Job(self.folder / "jobs" / f"{name}.json", output, content, inputs, self.config.resources)

    def _stage_job(self, kind: str, recipe: dict[str, Any], task: Any) -> Job:
        data = {name: load_identity(name) for name in self.track.manifests(task)}
        key = digest({"recipe": recipe, "data": data})[:16]
        if key not in self.stages:
            folder = stage_folder(key)
            content = {
                "kind": "stage",
                "stage": kind,
                "digest": key,
                "recipe": recipe,
                "data": data,
                "run": self.track.RUN_STAGE,
                "manifests": list(data),
                "output": str(folder / "record.json"),
            }
            self.stages[key] = Job(
                folder / "stage.json", folder / "record.json", content, self._pulled(task), self.config.stage_resources
            )
        return self.stages[key]

    def _pulled(self, task: Any) -> list[str]:
        return [str(pulled_marker(name)) for name in self.track.manifests(task)]

    def _check(self, name: str, experiment: Experiment) -> None:
        for metric in experiment.metrics:
            if metric not in self._metric_names():
                raise self.resolver.error(
                    name, f"metric '{metric}' does not exist{nearest(metric, self._metric_names())}"
                )
        for row_name, row in experiment.rows.items():
            for setting in row.per_setting:
                if setting not in experiment.settings:
                    hint = nearest(setting, list(experiment.settings))
                    raise self.resolver.error(name, f"row '{row_name}': per_setting '{setting}' names no setting{hint}")
        if self.config.seeds.pilot in (experiment.seeds or []):
            raise self.resolver.error(name, f"seeds: pilot seed {self.config.seeds.pilot} is for tuning only")

    def _metric_names(self) -> list[str]:
        measured = [metric.name for metric in (*self.track.METRICS, *self.track.EXTRA_METRICS)]
        return [*measured, *(f"gap_{name}" for name in self.track.GAP), "Avg. Gap"]

    # ---- the spec of table, claims and report

    def _spec(self) -> dict[str, Any]:
        slug = self.slug
        own_figures = [f"papers.{slug}.figures:figures"] if (papers_root() / slug / "figures.py").is_file() else []
        metrics = (*self.track.METRICS, *self.track.EXTRA_METRICS)
        return {
            "kind": "spec",
            "paper": slug,
            "scale": self.scale,
            "title": self.config.title,
            "track": self.config.track,
            "reference": self.track.REFERENCE,
            "gap_metrics": list(self.track.GAP),
            "metrics": [metric.model_dump() for metric in metrics],
            "published_data": self.config.published_data,
            "experiments": {name: self._experiment_spec(name, x) for name, x in self.config.experiments.items()},
            "cells": [
                {
                    "experiment": cell.experiment,
                    "setting": cell.setting,
                    "row": cell.row,
                    "record": str(job.output),
                    "error": str(error_file(job.output)),
                }
                for cell in self.cells
                for job in cell.jobs
            ],
            "seeds": self.config.seeds.test,
            "published_csv": f"papers/{slug}/published.csv",
            "claims_yaml": f"papers/{slug}/claims.yaml",
            "figures": [self.track.FIGURES, *own_figures],
            "deviations": self.config.deviations,
            "output": str(self.folder),
            "stages": sorted(str(job.output) for job in self.stages.values()),
        }

    def _experiment_spec(self, name: str, experiment: Experiment) -> dict[str, Any]:
        settings = {
            key: {"label": s.label, "published": s.published, "enabled": s.enabled, "why_not": s.why_not}
            for key, s in experiment.settings.items()
        }
        shown = next((key for key, s in experiment.settings.items() if s.enabled), next(iter(settings)))
        rows = {}
        for key, row in experiment.rows.items():
            method, options = self.resolver.row(name, shown, key)
            rows[key] = {
                "label": row.label or key,
                "published": row.published or key,
                "method": method,
                "options": options,
                "per_setting": row.per_setting,
            }
        return {
            "title": experiment.title,
            "published_table": experiment.published_table,
            "settings": settings,
            "rows": rows,
            "metrics": experiment.metrics,
            "note": experiment.note,
            "seeds": experiment.seeds or self.config.seeds.test,
        }

    # ---- what the engine asks for

    def write(self) -> None:
        """Write every job file whose content changed."""
        for job in [*self.stages.values(), *self.rows.values()]:
            write_json_if_changed(job.path, job.content)
        write_json_if_changed(self.spec_path, self.spec)

    def write_tuning(self) -> None:
        """Write the job files of the hyper-parameter search."""
        write_search(self, self.searches)

    @functools.cached_property
    def searches(self) -> list[Search]:
        """The hyper-parameter search on the pilot seed."""
        return searches(self)

    @property
    def spec_path(self) -> Path:
        """Job file of table, claims, report and verdict."""
        return self.folder / "jobs" / "spec.json"

    @property
    def tuning_path(self) -> Path:
        """Job file of the choice of hyper-parameters."""
        return self.folder / "jobs" / "tuning.json"

    @property
    def records(self) -> list[str]:
        """Records that the tables are made from."""
        return sorted({str(job.output) for cell in self.cells for job in cell.jobs})

    @property
    def tuning_records(self) -> list[str]:
        """Records that the choice of hyper-parameters is made from."""
        return sorted({str(job.output) for search in self.searches for _, job in search.points})

    def jobs(self) -> dict[str, Job]:
        """Stage and row jobs by the path of their record, those of the search included once it is planned."""
        found = [*self.stages.values(), *self.rows.values()]
        if "searches" in self.__dict__:
            found += [job for search in self.searches for _, job in search.points]
        return {str(job.output): job for job in found}


def pulled_marker(manifest: str) -> Path:
    """File that says that a data set is pulled and verified."""
    return data_root() / manifest / "pulled.json"


@functools.cache
def load_identity(manifest: str) -> str:
    """Digest of what a data set *is*, whatever address it came from."""
    return load_manifest(manifest).identity()


def _span(seeds: list[int]) -> str:
    return f"s{seeds[0]}" if len(seeds) == 1 else f"s{seeds[0]}-{seeds[-1]}"
