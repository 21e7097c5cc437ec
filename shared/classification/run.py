"""What stage and row jobs of the classification track do."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.classification import data
from shared.classification.context import Context, optimizer_options, stream_seed
from shared.classification.evaluate import evaluate, metric
from shared.classification.finetune import cross_entropy
from shared.classification.protocol import DataSpec, ForgetSpec, ModelSpec, Task, TrainRecipe
from shared.files import digest
from shared.gpu.device import choose_device, device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import precision_for
from shared.imports import import_path
from shared.metrics.accuracy import accuracy, predict
from shared.models.build import build, load_model, save_model
from shared.options import parse_options
from shared.results.records import Cost, Metric, Record, read_records
from shared.training.best import BestWeights
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import ScheduleOptions
from shared.training.schedule import Schedule
from shared.training.state import LoopState

MODEL_FILE = "model.safetensors"


def run_stage(job: Mapping[str, Any], out: Path, workdir: Path, threads: int = 1) -> Record:
    """Train the model of a stage (`job["recipe"]`, from `protocol.stages`) and leave it in `out`.

    A killed run continues from its checkpoint in `workdir`. threads: as the caller has set them,
    for the signature's sake of all tracks.
    """
    recipe = job["recipe"]
    spec, train = DataSpec(**recipe["data"]), TrainRecipe(**recipe["train"])
    forget = ForgetSpec(**recipe["forget"]) if recipe["forget"] else None
    device = _device()
    images = data.load(spec, device)
    sides = data.sides(images, spec, forget, recipe["seed"])
    model = _build(recipe["model"], spec, images, stream_seed(recipe["seed"], f"{recipe['stage']} weights"))
    generator = torch.Generator().manual_seed(stream_seed(recipe["seed"], f"{recipe['stage']} batches"))
    with PeakMemory(device) as peak:
        checkpoint = Checkpoint(Path(workdir) / "checkpoint.pt", key=digest(recipe))
        result = _train(model, sides.retain, sides.validation, train, generator, checkpoint)
    save_model(model, Path(out) / MODEL_FILE)
    scores = {"train_accuracy": sides.retain, "test_accuracy": sides.test}
    return Record(
        paper="",
        scale="",
        experiment="stage",
        setting=spec.name,
        row=recipe["stage"],
        seed=recipe["seed"],
        metrics=[Metric(name, accuracy(predict(model, side)), "%", "higher") for name, side in scores.items()],
        cost=Cost(result.seconds, result.steps, peak.peak_mb, device_name(device)),
        extras={"history": result.history},
    )


def _train(
    model: nn.Module,
    images: data.DeviceImages,
    validation: data.DeviceImages,
    recipe: TrainRecipe,
    generator: torch.Generator,
    checkpoint: Checkpoint,
) -> FitResult:
    """Train from scratch; keep the last epoch's weights, or the best on the validation set."""
    best = BestWeights()

    def select(state: LoopState) -> dict[str, float]:
        score = accuracy(predict(state.model, validation))
        best.offer(state.model, score)
        return {"validation_accuracy": score}

    selects = recipe.select == "best_validation"
    result = fit(
        model,
        lambda _, epoch_generator: images.batches(recipe.batch, epoch_generator),
        cross_entropy,
        optimizer=make_optimizer(model.parameters(), optimizer_options(recipe)),
        epochs=recipe.epochs,
        generator=generator,
        schedule=Schedule(_schedule(recipe), recipe.epochs),
        on_epoch_end=select if selects else None,
        stateful={"best": best} if selects else None,
        checkpoint=checkpoint,
    )
    best.restore(model)
    return result


def _schedule(recipe: TrainRecipe) -> ScheduleOptions:
    if recipe.schedule != "multistep":
        return ScheduleOptions(kind=recipe.schedule)
    return ScheduleOptions(kind="multistep", milestones=tuple(recipe.milestones), gamma=recipe.decay)


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Unlearn with one method and one seed, and measure the result.

    job: `task` (a Task's values), `method` (import path), `options` (its values). stages: folders
    of the stages that `protocol.stages_needed(method)` names. Returns metrics, cost and small
    values for figures.
    """
    task = Task(**job["task"])
    device = _device()
    images = data.load(task.data, device)
    sides = data.sides(images, task.data, task.forget, seed)
    untrained = partial(_build, task.model.model_dump(), task.data, images)
    context = Context(
        device,
        seed,
        images.train.num_classes,
        untrained,
        lambda name: _load_stage(stages[name], untrained(0)),
        Path(workdir),
        digest({"task": job["task"], "method": job["method"], "options": job["options"], "seed": seed}),
    )
    # Retrain needs no original: it is handed an untrained network and returns its own artifact.
    model = _load_stage(stages["original"], untrained(0))[0] if "original" in stages else context.fresh_model()
    model, cost = _unlearn(job, model, sides, context)
    metrics, extras = evaluate(model, sides, task.evaluate)
    metrics += [metric("RTE", cost.seconds / 60), metric("steps", cost.steps)]
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


def _build(model: Mapping[str, Any], spec: DataSpec, images: data.Images, seed: int) -> nn.Module:
    name = ModelSpec(**model).name
    network = build(name, images.train.num_classes, images.num_channels, spec.mean, spec.std, seed)
    return network.to(images.train.device)


def _load_stage(folder: Path, model: nn.Module) -> tuple[nn.Module, Cost]:
    load_model(model, Path(folder) / MODEL_FILE)
    return model, read_records(Path(folder) / "record.json")[0].cost


def _device() -> torch.device:
    device = choose_device()
    precision_for(device).activate()
    return device
