"""What a row job of the classification track does: unlearn with one method and one seed, and measure the result."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.classification import data
from shared.classification.context import Context
from shared.classification.evaluate import evaluate, metric
from shared.classification.masks import load_mask
from shared.classification.stages import (
    MASK_FILE,
    MODEL_FILE,
    SHADOW_FILE,
    build_model,
)
from shared.classification.task import Task
from shared.files import digest
from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.models.build import load_model
from shared.models.resnet_cifar import without_dropout
from shared.options import parse_options
from shared.results.records import Cost, Metric, read_records


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Unlearn with one method and one seed, and measure the result.

    job: `task` (a Task's values), `method` (import path), `options` (its values). stages: folders
    of the stages that `protocol.stages_needed(method)` names. Returns metrics, cost and small
    values for figures.
    """
    task = Task(**job["task"])
    images = data.load(task.data, job_device())
    sides = data.poisoned(data.sides(images, task.data, task.forget, seed), task.poison)
    untrained = partial(build_model, task.model.model_dump(), task.data, images)
    mask_file = stages["original"] / MASK_FILE if "original" in stages else None
    pruned = load_mask(mask_file, images.train.device) if mask_file and mask_file.is_file() else {}
    context = Context(
        images.train.device,
        seed,
        images.train.num_classes,
        untrained,
        lambda name: _load_stage(stages[name], untrained(0)),
        Path(workdir),
        digest({"task": job["task"], "method": job["method"], "options": job["options"], "seed": seed}),
        mask=pruned or None,
        pruned=pruned,
    )
    # Retrain needs no original: it is handed an untrained network and returns its own artifact.
    model = _load_stage(stages["original"], untrained(0))[0] if "original" in stages else context.fresh_model()
    model, cost = _unlearn(job, model, sides, context)
    metrics, extras = evaluate(
        model, sides, task, seed, stages["shadows"] / SHADOW_FILE if "shadows" in stages else None
    )
    metrics += [metric("RTE", cost.seconds / 60), metric("steps", cost.steps), *context.measured]
    return metrics, cost, {**extras, **context.extras}


def _unlearn(job: Mapping[str, Any], model: nn.Module, sides: data.Sides, context: Context) -> tuple[nn.Module, Cost]:
    method = import_path(job["method"])
    options = parse_options(job["method"], job["options"])
    with PeakMemory(context.device) as peak:
        started = time.perf_counter()
        model = method(model, sides.forget, sides.retain, options, context)
        if context.device.type == "cuda":
            torch.cuda.synchronize(context.device)
        seconds = time.perf_counter() - started + context.meter.recovered_seconds
    measured = Cost(seconds, context.meter.steps, peak.peak_mb, device_name(context.device))
    return model, context.meter.stage or measured


def _load_stage(folder: Path, model: nn.Module) -> tuple[nn.Module, Cost]:
    load_model(model, Path(folder) / MODEL_FILE)
    # No method here unlearns under dropout: the networks that have it are those of a released code which turns it off
    without_dropout(model)
    return model, read_records(Path(folder) / "record.json")[0].cost
