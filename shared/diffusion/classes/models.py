"""Class-conditional models and their judges as stages keep them, and as rows load them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from shared.diffusion.classes.classifier import FineTunedClassifier
from shared.diffusion.diffs import load_diff
from shared.diffusion.saved import DIFF, SOURCE, read_source
from shared.diffusion.zoo.class_diffusion import ClassDiffusion, load_class_diffusion
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.diffusion.zoo.options import ClassDiffusionRecipe
from shared.files import write_json
from shared.gpu.precision import precision_for

_CLASSIFIERS: dict[str, Any] = {"small": ShapeClassifier, "torchvision": FineTunedClassifier}

Classifier = ShapeClassifier | FineTunedClassifier


def save_class_model(model: ClassDiffusion, recipe: ClassDiffusionRecipe, folder: Path) -> None:
    """The model and its recipe, which has its noise schedule."""
    model.save(folder)
    write_json(folder / SOURCE, {"recipe": recipe.model_dump(mode="json")})


def load_class_model(folder: Path, device: torch.device | str) -> ClassDiffusion:
    """What `save_class_model` wrote, frozen. Raises DataError for a folder without it."""
    return load_class_diffusion(folder, load_recipe(folder).noise, device)


def load_recipe(folder: Path) -> ClassDiffusionRecipe:
    """The recipe of a saved model."""
    return ClassDiffusionRecipe.model_validate(read_source(folder)["recipe"])


def load_class_erased(folder: Path, model_folder: Path, device: torch.device | str) -> ClassDiffusion:
    """An erased model on its base. Erasing starts from the raw weights, so it has no average."""
    model = replace(load_class_model(model_folder, device), average=None)
    load_diff(folder / DIFF, model)
    return model


def save_class_classifier(model: Classifier, kind: str, folder: Path) -> None:
    """The judge, and which of the two classes it is."""
    cast(Any, model).save_pretrained(folder)
    write_json(folder / SOURCE, {"classifier": kind})


def load_class_classifier(folder: Path, device: torch.device | str) -> Classifier:
    """What `save_class_classifier` wrote, frozen. Raises DataError for a folder without it."""
    cls = _CLASSIFIERS[read_source(folder)["classifier"]]
    model = cls.from_pretrained(folder, local_files_only=True).to(device).eval().requires_grad_(False)
    precision_for(torch.device(device)).arrange(cast(nn.Module, model))
    return cast(Classifier, model)
