"""What a row job of the segmentation track does: assemble a predictor from trained parts, and evaluate it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.options import parse_options
from shared.results.records import Cost, Metric, read_records
from shared.segmentation.context import Context
from shared.segmentation.evaluate.run import evaluate
from shared.segmentation.protocol import EXTRA_METRICS, METRICS, SAM
from shared.segmentation.stages import load_part, load_stage_sam
from shared.segmentation.task import Task

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Evaluate one method with one seed.

    job: `task` (a Task's values), `method` (import path), `options` (its values). stages: folder of `sam` and of every
    part, by field name. The cost is that of the evaluation; training is the metric `train_minutes`. Metrics that the
    task's evaluation does not define are left out.
    """
    task = Task.model_validate(job["task"])
    context = Context(job_device(), seed, threads, task.train, Path(workdir))
    options = parse_options(job["method"], job["options"])
    with PeakMemory(context.device) as peak:
        started = time.perf_counter()
        sam = load_stage_sam(stages[SAM]) if SAM in stages else None
        recipes = {name: stage["recipe"] for name, stage in job["stages"][str(seed)].items() if name != SAM}
        parts = {name: load_part(Path(stages[name]), recipe, sam) for name, recipe in recipes.items()}
        predictor = import_path(job["method"])({**parts, **({SAM: sam} if sam else {})}, options, context)
        evaluated = evaluate(predictor, task.evaluate, context)
        seconds = time.perf_counter() - started
    trained = sum(read_records(Path(stages[name]) / "record.json")[0].cost.seconds for name in recipes)
    metrics = [_metric(name, value) for name, value in evaluated.metrics.items()]
    metrics += [_metric("train_minutes", trained / 60), *context.measured]
    return metrics, Cost(seconds, 0, peak.peak_mb, device_name(context.device)), evaluated.extras


def _metric(name: str, value: float) -> Metric:
    """A metric of the track, or one that a paper declares itself: the PQ of a class by its name."""
    spec = _SPECS.get(name)
    return Metric(name, float(value), spec.unit if spec else "", spec.better if spec else "higher")
