"""The plan of a hyper-parameter search: one row job a grid point, on the pilot seed, and the choice among them."""

from typing import TYPE_CHECKING, Any, NamedTuple

from shared.errors import ConfigError
from shared.files import write_json_if_changed

if TYPE_CHECKING:
    from shared.planning.plan import Job, Plan


class Search(NamedTuple):
    """The grid of one row in one setting; the row that a derived criterion refers to is a search of one point without
    changes."""

    experiment: str
    setting: str
    row: str
    points: "list[tuple[dict[str, Any], Job]]"


def grid_points(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid, first key slowest; an empty grid has one point without changes."""
    points: list[dict[str, Any]] = [{}]
    for key, values in grid.items():
        points = [{**point, key: value} for point in points for value in values]
    return points


def searches(plan: "Plan") -> list[Search]:
    """All searches of a plan, with the row that a derived criterion refers to."""
    tuning = plan.config.tuning
    if tuning is None:
        raise ConfigError(f"{plan.resolver.file}: no 'tuning' section")
    criterion = plan.metrics.find_derived(tuning.metric)
    reference = criterion.reference if criterion else None
    found = []
    for name, experiment in plan.config.experiments.items():
        if not any(row.grid for row in experiment.rows.values()):
            continue
        if reference is not None and reference not in experiment.rows:
            raise plan.resolver.error(
                name, f"tuning by '{tuning.metric}' needs the row '{reference}' in this experiment"
            )
        for setting, described in experiment.settings.items():
            if not described.enabled:
                continue
            task = plan.resolver.task(name, described, tuning.change)
            for row, values in experiment.rows.items():
                if values.enabled and (values.grid or row == reference):
                    points = [
                        (point, _job(plan, f"{name}/{setting}/{row}/tuning-{index:03d}", point, task))
                        for index, point in enumerate(grid_points(values.grid))
                    ]
                    found.append(Search(name, setting, row, points))
    return found


def _job(plan: "Plan", name: str, point: dict[str, Any], task: Any) -> "Job":
    experiment, setting, row, _ = name.split("/", 3)
    return plan.new_row_job(name, plan.recipe(experiment, setting, row, task, [plan.config.seeds.pilot], point), task)


def write_search(plan: "Plan", found: list[Search]) -> None:
    """Write the job files of a search and of the choice among its points."""
    tuning = plan.config.tuning
    assert tuning is not None  # `searches` has refused a plan without it
    criterion = plan.metrics.find_derived(tuning.metric)
    for job in [*plan.stages.values(), *(job for search in found for _, job in search.points)]:
        write_json_if_changed(job.path, job.content)
    write_json_if_changed(
        plan.tuning_path,
        {
            "kind": "tune",
            "paper": plan.slug,
            "scale": plan.scale,
            "metric": tuning.metric,
            "better": tuning.better,
            "derived": criterion.model_dump() if criterion else None,
            "units": plan.metrics.units(tuning.metric),
            "seed": plan.config.seeds.pilot,
            "searched": [
                {
                    "experiment": s.experiment,
                    "setting": s.setting,
                    "row": s.row,
                    "points": [{"options": point, "record": str(job.output)} for point, job in s.points],
                }
                for s in found
            ],
            "output": str(plan.folder / "tuned.json"),
        },
    )
