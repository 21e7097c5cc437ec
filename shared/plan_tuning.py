"""The plan of a hyper-parameter search: one row job a grid point, on the pilot seed, and the choice among them."""

from typing import TYPE_CHECKING, Any, NamedTuple

from shared.errors import ConfigError
from shared.files import write_json_if_changed

if TYPE_CHECKING:
    from shared.plan import Job, Plan


class Search(NamedTuple):
    """The grid of one row in one setting; the reference row is a search of one point without changes."""

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
    """All searches of a plan, with the reference row that gaps are taken against."""
    tuning = plan.config.tuning
    if tuning is None:
        raise ConfigError(f"{plan.resolver.file}: no 'tuning' section")
    found = []
    for name, experiment in plan.config.experiments.items():
        for setting, described in experiment.settings.items():
            if not described.enabled or not any(row.grid for row in experiment.rows.values()):
                continue
            task = plan.resolver.task(name, described, tuning.change)
            for row, values in experiment.rows.items():
                if values.grid or row == plan.track.REFERENCE:
                    points = [
                        (point, _job(plan, f"{name}/{setting}/{row}/tuning-{index:03d}", point, task))
                        for index, point in enumerate(grid_points(values.grid))
                    ]
                    found.append(Search(name, setting, row, points))
    return found


def _job(plan: "Plan", name: str, point: dict[str, Any], task: Any) -> "Job":
    experiment, setting, row, _ = name.split("/", 3)
    method, options = plan.resolver.row(experiment, setting, row, point)
    return plan.new_row_job(name, plan.recipe(method, options, task, [plan.config.seeds.pilot]), task)


def write_search(plan: "Plan", found: list[Search]) -> None:
    """Write the job files of a search and of the choice among its points."""
    tuning = plan.config.tuning
    assert tuning is not None  # `searches` has refused a plan without it
    for job in [*plan.stages.values(), *(job for search in found for _, job in search.points)]:
        write_json_if_changed(job.path, job.content)
    write_json_if_changed(
        plan.tuning_path,
        {
            "kind": "tune",
            "paper": plan.slug,
            "scale": plan.scale,
            "reference": plan.track.REFERENCE,
            "gap_metrics": list(plan.track.GAP),
            "metric": tuning.metric,
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
