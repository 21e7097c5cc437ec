"""What a row job of the diffusion track does: load the erased model, draw from it, judge it, attack it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.diffusion.classes.row import evaluate_classes
from shared.diffusion.evaluate.attack import evaluate_attack
from shared.diffusion.evaluate.images import Evaluated, evaluate_images
from shared.diffusion.protocol import ERASED, EXTRA_METRICS, METRICS, MODEL, REFERENCES
from shared.diffusion.task import ClassModelSpec, Task
from shared.diffusion.victim import (
    Victim,
    erase,
    load_erased,
    load_model,
)
from shared.files import digest
from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.results.records import Cost, Metric, read_records

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Judge one erased model with one seed.

    job: `task` (a Task's values), `method` (import path of the eraser), `options` (its values). stages: folders by name
    (`protocol`). The cost is that of the evaluation; erasing is the metric `erase_minutes`.
    """
    task = Task.model_validate(job["task"])
    stages = {name: Path(folder) for name, folder in stages.items()}
    place = job_device()
    with PeakMemory(place) as peak:
        started = time.perf_counter()
        if isinstance(task.model, ClassModelSpec):
            found = Evaluated(*evaluate_classes(task, job, seed, stages, Path(workdir), place))
        else:
            found = _evaluate(task, job, seed, stages, Path(workdir))
        seconds = time.perf_counter() - started
    if job["method"] == REFERENCES["original"]:
        found.metrics["erase_minutes"] = 0.0
    elif ERASED in stages:
        found.metrics["erase_minutes"] = read_records(stages[ERASED] / "record.json")[0].cost.seconds / 60
    metrics = [
        Metric(name, float(value), _SPECS[name].unit, _SPECS[name].better) for name, value in found.metrics.items()
    ]
    return metrics, Cost(seconds, 0, peak.peak_mb, device_name(place)), found.extras


def _evaluate(task: Task, job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path) -> Evaluated:
    """A text-to-image model: images of prompts, then the attack."""
    victim = _victim(task, job, seed, stages, workdir)
    found = Evaluated()
    parts = []
    if task.evaluate.images:
        parts.append(evaluate_images(task.evaluate.images, task, victim, stages, seed))
    if task.evaluate.attack:
        key = digest({name: job[name] for name in ("task", "method", "options")} | {"seed": seed})
        original = load_model(stages[MODEL])
        spec = task.evaluate.attack
        parts.append(evaluate_attack(spec, task, victim, original, stages, seed, workdir, key))
    for part in parts:
        found.metrics |= part.metrics
        found.extras |= part.extras
    return found


def _victim(task: Task, job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path) -> Victim:
    """The erased model: a stage's, or erased here where guidance cannot be stored."""
    if ERASED in stages:
        return load_erased(stages[ERASED], stages[MODEL])
    pipe = load_model(stages[MODEL])
    if job["method"] == REFERENCES["original"]:
        return Victim(pipe)
    data = getattr(task.model, "data", None)
    erased = erase(
        pipe, job["method"], job["options"], task.concept, data, seed, workdir / "erase", digest(job["options"])
    )
    return Victim(pipe, erased.guidance)
