"""What the stage jobs of the classification track make: trained models, and what shadow models say."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from shared.classification import data
from shared.classification.context import optimizer_options
from shared.classification.masks import Mask, load_mask, save_mask
from shared.classification.pruning import apply_mask, imp_mask, synflow_mask
from shared.classification.task import DataSpec, ForgetSpec, ModelSpec, PoisonSpec, PruningSpec, TrainRecipe
from shared.data.checkpoints import checkpoint_file
from shared.files import atomic_path, digest
from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.metrics.accuracy import accuracy, predict
from shared.models.build import build, load_model, load_pretrained, save_model
from shared.results.records import Cost, Metric, Record
from shared.training.best import BestWeights
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import Batch
from shared.training.loop import FitResult, fit
from shared.training.mask import WeightMask
from shared.training.optim import make_optimizer
from shared.training.options import ScheduleOptions
from shared.training.schedule import Schedule
from shared.training.seeds import stream_seed
from shared.training.state import LoopState

MODEL_FILE = "model.safetensors"
MASK_FILE = "mask.safetensors"
SHADOW_FILE = "shadows.safetensors"


@dataclass(frozen=True)
class Bench:
    """What every training of a stage needs: the recipe, typed, and its images."""

    recipe: Mapping[str, Any]
    spec: DataSpec
    train: TrainRecipe
    images: data.Images
    sides: data.Sides

    @property
    def device(self) -> torch.device:
        return self.images.train.device

    def stream(self, name: str) -> int:
        """Seed of one of the stage's random streams."""
        return stream_seed(self.recipe["seed"], f"{self.recipe['stage']} {name}")

    def untrained(self, name: str = "weights") -> nn.Module:
        """A network of the recipe before training: fresh, or with a pretrained backbone."""
        model = build_model(self.recipe["model"], self.spec, self.images, self.stream(name))
        if self.train.init:
            load_pretrained(model, checkpoint_file(self.train.init))
        return model


def run_stage(job: Mapping[str, Any], out: Path, workdir: Path, threads: int = 1) -> Record:
    """Make a stage (`job["recipe"]`, from `protocol.stages`) and leave its artifacts in `out`.

    A killed run continues from its checkpoints in `workdir`. threads: as the caller has set them,
    for the signature's sake of all tracks.
    """
    recipe = job["recipe"]
    bench = _bench(recipe)
    parents = {name: Path(stage["output"]).parent for name, stage in job.get("stages", {}).items()}
    with PeakMemory(bench.device) as peak:
        if recipe["stage"] == "shadows":
            result = _train_shadows(bench, out, workdir)
            metrics: list[Metric] = []
        else:
            result, metrics = _train_one(bench, parents, out, workdir)
    return Record(
        paper="",
        scale="",
        experiment="stage",
        setting=bench.spec.name,
        row=recipe["stage"],
        seed=recipe["seed"],
        metrics=metrics,
        cost=Cost(result.seconds, result.steps, peak.peak_mb, device_name(bench.device)),
        extras={"history": result.history},
    )


def _bench(recipe: Mapping[str, Any]) -> Bench:
    spec, train = DataSpec(**recipe["data"]), TrainRecipe(**recipe["train"])
    forget = ForgetSpec(**recipe["forget"]) if recipe["forget"] else None
    images = data.load(spec.model_copy(update={"augment": train.augment or spec.augment}), job_device())
    sides = data.sides(images, spec, forget, recipe["seed"])
    if recipe.get("poison"):
        marked = data.poisoned(sides, PoisonSpec(**recipe["poison"]))
        sides = replace(marked, retain=marked.retain.followed_by(marked.forget))
    return Bench(recipe, spec, train, images, sides)


def _train_one(bench: Bench, parents: Mapping[str, Path], out: Path, workdir: Path) -> tuple[FitResult, list[Metric]]:
    """Train the stage's one model: dense, pruned by its own rule, or under the mask of another."""
    model, mask = _start(bench, parents, workdir)
    pruning = PruningSpec(**bench.recipe["pruning"]) if bench.recipe.get("pruning") else None
    start = pruning.rewind_epoch if pruning and pruning.rewind_schedule else 0
    result = _train(bench, model, workdir / "checkpoint.pt", digest(bench.recipe), mask=mask, start=start)
    save_model(model, out / MODEL_FILE)
    if mask is not None:
        save_mask(mask, out / MASK_FILE)
    scores = {"train_accuracy": bench.sides.retain, "test_accuracy": bench.sides.test}
    return result, [Metric(name, accuracy(predict(model, side)), "%", "higher") for name, side in scores.items()]


def _start(bench: Bench, parents: Mapping[str, Path], workdir: Path) -> tuple[nn.Module, Mask | None]:
    """The network that training starts from, and the weights it may have (None: all)."""
    model = bench.untrained()
    if "pruned" in parents:
        # Retrain under the original's mask, from fresh weights
        mask = load_mask(parents["pruned"] / MASK_FILE, bench.device)
    elif bench.recipe.get("pruning"):
        mask = _pruning_mask(bench, model, parents, workdir)
    else:
        return model, None
    if gone := [name for name, kept in mask.items() if not kept.any()]:
        # Defined all the same: what follows sees the layer's batch norm only, or the shortcut beside it
        warnings.warn(f"pruning leaves {', '.join(gone)} without a weight; a lower sparsity would not", stacklevel=2)
    apply_mask(model, mask)
    return model, mask


def _pruning_mask(bench: Bench, model: nn.Module, parents: Mapping[str, Path], workdir: Path) -> Mask:
    """The mask; `model` is left at the weights that the pruned network starts from."""
    pruning = PruningSpec(**bench.recipe["pruning"])
    if pruning.method == "synflow":
        shape = tuple(bench.images.train.images.shape[1:])
        return synflow_mask(model, pruning.sparsity, pruning.iterations, shape)
    dense = load_model(bench.untrained(), parents["dense"] / MODEL_FILE)
    before = parents["dense"] / MASK_FILE
    mask = imp_mask(dense, pruning.sparsity, load_mask(before, bench.device) if before.is_file() else None)
    if pruning.rewind_epoch:
        # The dense run's first epochs again, with its seed: a snapshot would make its stage another one
        rewind = bench.train.model_copy(update={"select": "last"})
        key = digest({"recipe": bench.recipe, "rewind": pruning.rewind_epoch})
        _train(bench, model, workdir / "rewind.pt", key, recipe=rewind, stop_after=pruning.rewind_epoch)
    return mask


def _train(
    bench: Bench,
    model: nn.Module,
    checkpoint: Path,
    key: str,
    *,
    stream: str = "batches",
    retain: data.DeviceImages | None = None,
    recipe: TrainRecipe | None = None,
    start: int = 0,
    stop_after: int | None = None,
    mask: Mask | None = None,
) -> FitResult:
    """Train in place; keep the last epoch's weights, or the best on the validation or test set.

    start: epochs of the learning rate's schedule that are left out; stop_after: end after so many epochs.
    """
    recipe = recipe or bench.train
    images = bench.sides.retain if retain is None else retain
    best = BestWeights()
    judged = bench.sides.validation if recipe.select == "best_validation" else bench.sides.test
    held = WeightMask(model, mask) if mask is not None else None

    def select(state: LoopState) -> dict[str, float]:
        score = accuracy(predict(state.model, judged))
        best.offer(state.model, score)
        return {f"{recipe.select.removeprefix('best_')}_accuracy": score}

    selects = recipe.select != "last"
    result = fit(
        model,
        lambda _, generator: images.batches(recipe.batch, generator),
        partial(_loss, smoothing=recipe.label_smoothing),
        optimizer=make_optimizer(model.parameters(), optimizer_options(recipe)),
        epochs=recipe.epochs if stop_after is None else stop_after,
        generator=torch.Generator().manual_seed(bench.stream(stream)),
        schedule=Schedule(_schedule(recipe), recipe.epochs, start),
        after_backward=held.after_backward if held else None,
        after_step=held.after_step if held else None,
        on_epoch_end=select if selects else None,
        stateful={**({"best": best} if selects else {}), **({"mask": held} if held else {})} or None,
        checkpoint=Checkpoint(checkpoint, key=key),
    )
    best.restore(model)
    return result


def _loss(model: nn.Module, batch: Batch, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(model(batch.images), batch.labels, label_smoothing=smoothing)


def _schedule(recipe: TrainRecipe) -> ScheduleOptions:
    if recipe.schedule != "multistep":
        return ScheduleOptions(kind=recipe.schedule, warmup=recipe.warmup)
    return ScheduleOptions(
        kind="multistep", milestones=tuple(recipe.milestones), gamma=recipe.decay, warmup=recipe.warmup
    )


# ---- shadow models


def _train_shadows(bench: Bench, out: Path, workdir: Path) -> FitResult:
    """Train the shadow models one after another and keep their softmax outputs on D_f and the unseen images.

    Each sees a random half of D_r and, when whole classes are forgotten, half of D_f too. Finished ones survive a kill.
    """
    sides, by_class = bench.sides, bool(len(bench.sides.test_forgotten))
    unseen = sides.test_forgotten if by_class else sides.test
    outputs: dict[str, list[torch.Tensor]] = {"forget": [], "unseen": []}
    results = []
    for number in range(bench.recipe["num"]):
        generator = torch.Generator().manual_seed(bench.stream(f"half {number}"))
        seen = _half(sides.retain, generator)
        if by_class:
            seen = seen.followed_by(_half(sides.forget, generator))
        model = bench.untrained(f"weights {number}")
        file, key = workdir / f"shadow-{number}.pt", digest({"recipe": bench.recipe, "shadow": number})
        results.append(_train(bench, model, file, key, stream=f"batches {number}", retain=seen))
        for name, side in (("forget", sides.forget), ("unseen", unseen)):
            outputs[name].append(torch.as_tensor(predict(model, side).values, dtype=torch.float32))
    with atomic_path(out / SHADOW_FILE) as temporary:
        save_file({name: torch.stack(found) for name, found in outputs.items()}, temporary)
    return FitResult(sum(r.steps for r in results), sum(r.seconds for r in results), [])


def _half(images: data.DeviceImages, generator: torch.Generator) -> data.DeviceImages:
    return images.subset(torch.randperm(len(images), generator=generator)[: max(1, len(images) // 2)])


# ---- for stages and rows


def build_model(model: Mapping[str, Any], spec: DataSpec, images: data.Images, seed: int) -> nn.Module:
    """An untrained network for a data set, on its device."""
    name = ModelSpec(**model).name
    network = build(name, images.train.num_classes, images.num_channels, spec.mean, spec.std, seed)
    return network.to(images.train.device)
