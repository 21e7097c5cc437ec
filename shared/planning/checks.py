"""What an experiment must satisfy besides its types. A mistake is one ConfigError with file, experiment and place."""

from collections.abc import Iterator

from shared.config import Experiment, PaperConfig, Row
from shared.errors import nearest
from shared.planning.metrics import PaperMetrics
from shared.planning.rows import Resolver


def check_experiment(config: PaperConfig, resolver: Resolver, metrics: PaperMetrics, name: str) -> None:
    """Raise ConfigError for the first mistake in the experiment `name`."""
    for problem in _problems(config, resolver, metrics, config.experiments[name]):
        raise resolver.error(name, problem)
    for manifest in config.experiments[name].manifests:
        resolver.check_manifest(name, manifest)


def _problems(config: PaperConfig, resolver: Resolver, metrics: PaperMetrics, experiment: Experiment) -> Iterator[str]:
    yield from (metrics.unknown(metric) for metric in experiment.metrics if metric not in metrics.names)
    for row_name, row in experiment.rows.items():
        for setting in row.per_setting:
            if setting not in experiment.settings:
                hint = nearest(setting, list(experiment.settings))
                yield f"row '{row_name}': per_setting '{setting}' names no setting{hint}"
        yield from _liked(config, experiment, row_name, row)
    if config.seeds.pilot in (experiment.seeds or []):
        yield f"seeds: pilot seed {config.seeds.pilot} is for tuning only"
    yield from _of_study(experiment) if experiment.study else _of_tasks(experiment)


def _liked(config: PaperConfig, experiment: Experiment, name: str, row: Row) -> Iterator[str]:
    liked = config.experiments.get(row.like.partition("/")[0])
    if row.like and liked is not None and liked.study != experiment.study:
        yield f"row '{name}': like '{row.like}' is {'no ' if experiment.study else ''}row of a study, this one is " + (
            "one" if experiment.study else "not"
        )


def _of_study(experiment: Experiment) -> Iterator[str]:
    for name, setting in experiment.settings.items():
        for key in ("task", "change"):
            if getattr(setting, key):
                yield f"setting '{name}': {key}: a study has no task; what differs between settings goes to 'options'"
    for name, row in experiment.rows.items():
        if row.method and ":" not in row.method:
            yield (
                f"row '{name}': method '{row.method}' is not a function of the paper; "
                "a study's is 'papers.<slug>.<module>:<function>'"
            )
        if row.needs:
            yield f"row '{name}': needs: a study has no task, and so no stages"
        if row.grid:
            yield f"row '{name}': grid: a study is not tuned; write the options"


def _of_tasks(experiment: Experiment) -> Iterator[str]:
    for name, setting in experiment.settings.items():
        if not setting.task:
            yield f"setting '{name}': no task; name one of 'tasks', or say 'study: true' at the experiment"
    if experiment.manifests:
        yield "manifests: only a study names its data here; the data of an experiment is that of its tasks"
