"""What the stage jobs make for class-conditional models: the model, one without the class, the judge, erased models.

A recipe is one of `shared.diffusion.protocol`. Every maker leaves its artifacts in `out` and returns what its training
cost; a killed run continues from the checkpoint in `workdir`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from shared.diffusion.classes.classifier import HEAD, fine_tune_classifier
from shared.diffusion.classes.data import load_classes
from shared.diffusion.classes.erasers import ForgottenClass, class_context
from shared.diffusion.classes.models import (
    Classifier,
    load_class_model,
    load_recipe,
    save_class_classifier,
    save_class_model,
)
from shared.diffusion.concepts.spec import ClassConcept
from shared.diffusion.diffs import copy_weights, save_diff
from shared.diffusion.erasers.context import Erased
from shared.diffusion.protocol import CLASSIFIER, ERASED, MODEL, RETRAINED
from shared.diffusion.saved import DIFF
from shared.diffusion.task import Classifier as ClassifierRecipes
from shared.diffusion.zoo.class_diffusion import train_class_diffusion
from shared.diffusion.zoo.classifier import train_classifier
from shared.diffusion.zoo.options import ClassDiffusionRecipe, FineTunedRecipe
from shared.files import digest
from shared.gpu.launch import is_main_process
from shared.imports import import_path
from shared.options import parse_options
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult
from shared.training.seeds import stream

_CLASSIFIER_RECIPE: TypeAdapter[ClassifierRecipes] = TypeAdapter(ClassifierRecipes)


def make(
    recipe: Mapping[str, Any], parents: Mapping[str, Path], out: Path, workdir: Path, device: torch.device
) -> list[FitResult]:
    """Make the stage of a recipe. parents: folders of the stages that it stands on."""
    key = digest(recipe)
    if recipe["stage"] == ERASED:
        return make_class_erased(recipe, parents[MODEL], out, workdir, key, device)
    checkpoint = Checkpoint(workdir / f"{recipe['stage']}.checkpoint.pt", key)
    makers = {MODEL: make_class_model, RETRAINED: make_retrained, CLASSIFIER: make_class_classifier}
    return makers[recipe["stage"]](recipe, out, checkpoint, device)


def make_class_model(
    recipe: Mapping[str, Any], out: Path, checkpoint: Checkpoint | None, device: torch.device
) -> list[FitResult]:
    """Train on all training images of `recipe["data"]`."""
    return _train(recipe, None, out, checkpoint, device)


def make_retrained(
    recipe: Mapping[str, Any], out: Path, checkpoint: Checkpoint | None, device: torch.device
) -> list[FitResult]:
    """Train on all training images but those of the class; its label stays, and nothing is learned about it."""
    return _train(recipe, ClassConcept.model_validate(recipe["concept"]).label, out, checkpoint, device)


def _train(
    recipe: Mapping[str, Any], left_out: int | None, out: Path, checkpoint: Checkpoint | None, device: torch.device
) -> list[FitResult]:
    typed = ClassDiffusionRecipe.model_validate(recipe["recipe"])
    data = load_classes(recipe["data"], "train", device)
    images = data.images if left_out is None else data.without(left_out)
    model, fit = train_class_diffusion(
        images.images, images.labels, images.num_classes, typed, recipe["seed"], checkpoint=checkpoint
    )
    if is_main_process():
        save_class_model(model, typed, out)
    return [fit]


def make_class_classifier(
    recipe: Mapping[str, Any], out: Path, checkpoint: Checkpoint | None, device: torch.device
) -> list[FitResult]:
    """Train the judge of the images: a small network, or a published one with a new last layer."""
    typed = _CLASSIFIER_RECIPE.validate_python(recipe["recipe"])
    data, seed = load_classes(recipe["data"], "train", device), recipe["seed"]
    model: Classifier
    if isinstance(typed, FineTunedRecipe):
        model, fit = fine_tune_classifier(data.images, data.names, typed, seed, checkpoint=checkpoint)
    else:
        images, labels = data.images.images, data.images.labels[:, None]
        model, fit = train_classifier(images, labels, {HEAD: data.names}, typed, seed, checkpoint=checkpoint)
    if is_main_process():
        save_class_classifier(model, typed.kind, out)
    return [fit]


def make_class_erased(
    recipe: Mapping[str, Any], model_folder: Path, out: Path, workdir: Path | None, key: str, device: torch.device
) -> list[FitResult]:
    """Erase the class from the raw weights, and keep those that changed. workdir, key: of the checkpoints."""
    model = load_class_model(model_folder, device)
    base = copy_weights(model)
    label = ClassConcept.model_validate(recipe["concept"]).label
    data = load_classes(recipe["data"], "train", device, flip=load_recipe(model_folder).train.flip)
    concept = ForgottenClass(label, data.of(label), data.without(label))
    context = class_context(model, lambda name: stream(recipe["seed"], name), workdir, key)
    eraser: Callable[..., Erased] = import_path(recipe["eraser"])
    erased = eraser(model.unet, concept, parse_options(recipe["eraser"], dict(recipe["options"])), context)
    if is_main_process():
        save_diff(out / DIFF, base, model)
    return [erased.fit] if erased.fit else []
