"""What the stage jobs of the diffusion track make: models, classifiers that judge them, erased models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.data.pull import pull
from shared.diffusion.classes import stages as classes
from shared.diffusion.protocol import CLASSIFIER, ERASED, MODEL
from shared.diffusion.saved import SOURCE
from shared.diffusion.victim import make_erased
from shared.diffusion.world.read import read_world
from shared.diffusion.world.words import HEADS
from shared.diffusion.zoo.classifier import train_classifier
from shared.diffusion.zoo.options import ClassifierRecipe, WorldRecipe
from shared.diffusion.zoo.world import make_world
from shared.files import digest, write_json
from shared.gpu.device import device_name
from shared.gpu.launch import is_main_process
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.results.records import Cost, Record
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult


def run_stage(job: Mapping[str, Any], out: Path, workdir: Path, threads: int = 1) -> Record:
    """Make a stage (`job["recipe"]`, from `protocol`) and leave its artifacts in `out`.

    A killed run continues from its checkpoints in `workdir`. threads: as the caller has set them, for the signature's
    sake of all tracks.
    """
    recipe, place = job["recipe"], job_device()
    parents = {name: Path(stage["output"]).parent for name, stage in job.get("stages", {}).items()}
    with PeakMemory(place) as peak:
        if recipe["kind"] == "class_conditional":
            fits = classes.make(recipe, parents, out, workdir, place)
        else:
            fits = _make(recipe, parents, out, workdir)
    return Record(
        paper="",
        scale="",
        experiment="stage",
        setting="",
        row=recipe.get("eraser", recipe["stage"]),
        seed=recipe["seed"],
        metrics=[],
        cost=Cost(sum(fit.seconds for fit in fits), sum(fit.steps for fit in fits), peak.peak_mb, device_name(place)),
        extras={"history": [fit.history for fit in fits]},
    )


def _make(recipe: Mapping[str, Any], parents: Mapping[str, Path], out: Path, workdir: Path) -> list[FitResult]:
    key = digest(recipe)
    if recipe["stage"] == ERASED:
        fit = make_erased(recipe, parents[MODEL], out, workdir, key)
        return [fit] if fit else []
    if recipe["stage"] == CLASSIFIER:
        return [_make_classifier(recipe, out, Checkpoint(workdir / "classifier.checkpoint.pt", key))]
    if recipe["kind"] == "checkpoint":
        if is_main_process():
            write_json(out / SOURCE, {"checkpoint": recipe["checkpoint"], "dtype": recipe["dtype"]})
        return []
    world = make_world(
        pull(recipe["data"]),
        WorldRecipe.model_validate(recipe["recipe"]),
        recipe["seed"],
        device=job_device(),
        checkpoint=lambda name: Checkpoint(workdir / f"{name}.checkpoint.pt", key),
    )
    if is_main_process():
        world.save(out)
        write_json(out / SOURCE, {"pipeline": "pipeline"})
    return list(world.fits.values())


def _make_classifier(recipe: Mapping[str, Any], out: Path, checkpoint: Checkpoint) -> FitResult:
    """The judge of the world: object, style and colour of an image."""
    train = read_world(pull(recipe["data"]), "train", job_device())
    options = ClassifierRecipe.model_validate(recipe["recipe"])
    model, fit = train_classifier(train.images, train.labels, HEADS, options, recipe["seed"], checkpoint=checkpoint)
    if is_main_process():
        model.save_pretrained(out)
    return fit
