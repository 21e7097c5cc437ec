"""What a row job of the detection track does: assemble a detector from trained parts, and evaluate it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.detection.judge import evaluate
from shared.detection.protocol import EXTRA_METRICS, METRICS
from shared.detection.task import Task
from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.options import parse_options
from shared.results.records import Cost, Metric, read_records
from shared.segmentation.context import Context
from shared.segmentation.stages import load_part

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Evaluate one method with one seed.

    job: `task` (a Task's values), `method` (import path), `options` (its values). stages: folder of every part, by
    field name. The cost is that of the evaluation; training is the metric `train_minutes`, with that of what a part
    starts from (MIMDet's autoencoder); `step_ms` is of the part alone.
    """
    task = Task.model_validate(job["task"])
    context = Context(job_device(), seed, threads, task.train, Path(workdir))
    options = parse_options(job["method"], job["options"])
    made = job["stages"][str(seed)]
    costs = [read_records(Path(stages[name]) / "record.json")[0].cost for name in made]
    minutes = (sum(cost.seconds for cost in costs) + sum(seconds_before(stage) for stage in made.values())) / 60
    with PeakMemory(context.device) as peak:
        started = time.perf_counter()
        parts = {name: load_part(Path(stages[name]), stage["recipe"], None) for name, stage in made.items()}
        found = evaluate(import_path(job["method"])(parts, options, context), task.evaluate, context)
        seconds = time.perf_counter() - started
    values = {**found.metrics, "train_minutes": minutes}
    values["parameters"] = sum(p.numel() for part in parts.values() for p in part.parameters()) / 1e6
    if steps := sum(cost.steps for cost in costs):
        values["step_ms"] = 1e3 * sum(cost.seconds for cost in costs) / steps
    metrics = [Metric(name, float(value), _SPECS[name].unit, _SPECS[name].better) for name, value in values.items()]
    return [*metrics, *context.measured], Cost(seconds, 0, peak.peak_mb, device_name(context.device)), found.extras


def seconds_before(stage: Mapping[str, Any]) -> float:
    """Training of all stages that a stage starts from, in seconds."""
    before = stage.get("stages", {}).values()
    own = sum(read_records(Path(one["output"]))[0].cost.seconds for one in before)
    return own + sum(seconds_before(one) for one in before)
