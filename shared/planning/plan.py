"""The plan of a paper: from its typed configuration to self-contained job files. Imports neither torch nor pandas.

Kinds of job: `stage` (an artifact that rows need, keyed by the digest of its recipe and shared between papers), `row`
(one method in one setting, one or more seeds), and one `spec` a scale, from which table, claims, report and verdict
are made. Job files are rewritten only when their content changes: for the engine, a newer file means a changed job.
"""

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config import TRACKS, PaperConfig, load_config
from shared.errors import ConfigError, nearest
from shared.files import digest, write_json_if_changed
from shared.options import source_of
from shared.paths import results_of, shown
from shared.planning.checks import check_experiment
from shared.planning.jobs import Job, pulled_marker
from shared.planning.metrics import PaperMetrics
from shared.planning.rows import Resolver
from shared.planning.spec import spec_of
from shared.planning.stages import StagePlan
from shared.planning.tuning import Search, searches, write_search

RUN_STUDY = "shared.study:run_row"


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
        self.tracks = {name: importlib.import_module(TRACKS[name]) for name in self.config.tracks()}
        file = f"papers/{slug}/config/{scale}.yaml"
        self.metrics = PaperMetrics(self.config, self.tracks, file)
        self.resolver = Resolver(self.config, self.tracks, file)
        self.folder = results_of(slug, scale)
        self._stages = StagePlan(self.tracks, self.config.stage_resources)
        self.rows: dict[str, Job] = {}  # by digest of the recipe: equal cells of two tables are computed once
        self.cells = [cell for name in self.config.experiments for cell in self._cells(name)]
        self.spec = spec_of(self)

    # ---- rows and what they stand on

    def _cells(self, name: str) -> list[Cell]:
        check_experiment(self.config, self.resolver, self.metrics, name)
        experiment = self.config.experiments[name]
        seeds = experiment.seeds or self.config.seeds.test
        return [
            self._cell(name, setting, row, seeds)
            for setting, described in experiment.settings.items()
            if described.enabled
            for row, values in experiment.rows.items()
            if values.enabled
        ]

    def _cell(self, name: str, setting: str, row: str, seeds: list[int]) -> Cell:
        experiment = self.config.experiments[name]
        task = None if experiment.study else self.resolver.task(name, experiment.settings[setting])
        size = self.config.seeds_per_job
        jobs = []
        for group in (seeds[i : i + size] for i in range(0, len(seeds), size)):
            recipe = self.recipe(name, setting, row, task, group)
            key = digest(recipe)
            if key not in self.rows:
                self.rows[key] = self.new_row_job(f"{name}/{setting}/{row}/{_span(group)}", recipe, task)
            jobs.append(self.rows[key])
        return Cell(name, setting, row, jobs)

    def recipe(
        self,
        experiment: str,
        setting: str,
        row: str,
        task: Any,
        seeds: list[int],
        changes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What decides a row's numbers. task: None in a study; changes: a grid point, laid over the row's options."""
        method, options = self.resolver.row(experiment, setting, row, changes)
        common = {"method": method, "options": options, "seeds": seeds}
        if task is None:
            return {"study": True, **common, "manifests": self.config.experiments[experiment].manifests}
        needs = self.resolver.needs(experiment, row)
        more = {"needs": needs} if needs else {}
        return {"track": self.config.track_of(experiment), **common, "task": task.model_dump(), **more}

    def new_row_job(self, name: str, recipe: dict[str, Any], task: Any) -> Job:
        """The job of a row; `name` is experiment/setting/row/seeds. Its stages enter the plan."""
        experiment, setting, row, _ = name.split("/", 3)
        track = self.resolver.track(experiment)
        stages = {seed: self._stages_of_row(experiment, row, recipe, task, seed) for seed in recipe["seeds"]}
        manifests = recipe["manifests"] if task is None else track.manifests(task)
        sources = [recipe["method"], *(track.sources(task) if task is not None and hasattr(track, "sources") else [])]
        output = self.folder / "records" / f"{name}.json"
        content = {
            "kind": "row",
            "paper": self.slug,
            "scale": self.scale,
            "experiment": experiment,
            "setting": setting,
            "row": row,
            **recipe,
            "run": RUN_STUDY if task is None else track.RUN_ROW,
            "manifests": manifests,
            "stages": {str(seed): {kind: job.content for kind, job in kinds.items()} for seed, kinds in stages.items()},
            "output": str(output),
        }
        inputs = [
            *dict.fromkeys(shown(source_of(path)) for path in sources),
            *(str(pulled_marker(manifest)) for manifest in manifests),
            *(str(job.output) for kinds in stages.values() for job in kinds.values()),
        ]
        return Job(self.folder / "jobs" / f"{name}.json", output, content, inputs, self.config.resources)

    def _stages_of_row(self, experiment: str, row: str, recipe: dict[str, Any], task: Any, seed: int) -> dict[str, Job]:
        """Jobs of the stages that a row reads: those its track says, and its own `needs`."""
        if task is None:
            return {}
        track = self.resolver.track(experiment)
        recipes = track.stages(task, seed)
        trained = self._parts_of_row(experiment, row, recipe, task, seed)
        for name in recipe.get("needs", []):
            if name not in recipes:
                hint = nearest(name, list(recipes))
                raise self.resolver.error(
                    experiment, f"row '{row}': needs '{name}', which is no stage of its task{hint}"
                )
        wanted = {*track.stages_needed(recipe["method"], task), *recipe.get("needs", [])}
        chosen = {**{name: recipes[name] for name in wanted}, **trained}
        return {name: self._stages.job(name, chosen[name], task) for name in sorted(chosen)}

    def _parts_of_row(
        self, experiment: str, row: str, recipe: dict[str, Any], task: Any, seed: int
    ) -> dict[str, dict[str, Any]]:
        """Recipes of what a row's own options ask to be trained, in tracks whose methods are made of such parts."""
        parts = getattr(self.resolver.track(experiment), "parts", None)
        if parts is None:
            return {}
        try:
            found: dict[str, dict[str, Any]] = parts(recipe["method"], recipe["options"], task, seed)
        except ConfigError as error:
            raise self.resolver.error(experiment, f"row '{row}': {error}") from None
        return found

    @property
    def stages(self) -> dict[str, Job]:
        """Stage jobs by digest."""
        return self._stages.jobs

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


def _span(seeds: list[int]) -> str:
    return f"s{seeds[0]}" if len(seeds) == 1 else f"s{seeds[0]}-{seeds[-1]}"
