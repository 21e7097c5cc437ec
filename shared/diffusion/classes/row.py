"""What a row measures of a class-conditional model: images of every class, judged and compared with real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.diffusion.classes.classifier import HEAD
from shared.diffusion.classes.data import ClassImages, load_classes
from shared.diffusion.classes.models import load_class_classifier, load_class_erased, load_class_model
from shared.diffusion.concepts.spec import ClassConcept
from shared.diffusion.evaluate.frechet import classifier_features, frechet_distance, inception_features
from shared.diffusion.evaluate.pictures import pack
from shared.diffusion.evaluate.spec import ClassImagesSpec
from shared.diffusion.protocol import CLASSIFIER, ERASED, MODEL, REFERENCES, RETRAINED
from shared.diffusion.task import ClassModelSpec, Task
from shared.diffusion.zoo.class_diffusion import ClassDiffusion
from shared.errors import ConfigError
from shared.results.records import read_records
from shared.training.device_images import as_float
from shared.training.seeds import stream_seed


def evaluate_classes(
    task: Task, job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, device: torch.device
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics (UA_drawn and IRA in percent, FID_world or FID, erase_minutes of a retrained model) and extras.

    job: its `method` is an import path. stages: folder of each stage. workdir: nothing here is long enough to be kept
    there. Equal seeds draw from equal noise, whatever the method.
    """
    spec, concept = task.evaluate.classes, task.concept
    if spec is None or not isinstance(task.model, ClassModelSpec) or not isinstance(concept, ClassConcept):
        raise ConfigError("evaluate: this model needs 'classes'")
    model = load_row_model(job["method"], stages, device)
    real = load_classes(task.model.data, "train", device)
    drawn = draw_classes(model, real, concept.label, spec, seed)
    metrics, extras = _judged(drawn, concept.label, real, spec, stages[CLASSIFIER])
    if RETRAINED in stages:
        metrics["erase_minutes"] = read_records(stages[RETRAINED] / "record.json")[0].cost.seconds / 60
    if not task.scores_only:
        extras["pictures"] = _pictures(drawn, concept.label, real.names, spec.pictures)
    return metrics, extras


def load_row_model(method: str, stages: Mapping[str, Path], device: torch.device) -> ClassDiffusion:
    """The model that a row draws from. Raises ConfigError for a method that a class-conditional model does not have."""
    if method == REFERENCES["original"]:
        return load_class_model(stages[MODEL], device)
    if method == REFERENCES["retrain"]:
        return load_class_model(stages[RETRAINED], device)
    if ERASED not in stages:
        raise ConfigError(f"method '{method}' leaves no erased class-conditional model")
    return load_class_erased(stages[ERASED], stages[MODEL], device)


def draw_classes(
    model: ClassDiffusion, real: ClassImages, label: int, spec: ClassImagesSpec, seed: int
) -> dict[int, Tensor]:
    """Images (n, C, H, W) in [0, 1] of every class: `spec.forgotten` of the class `label`, of others `retained`."""
    drawn = {}
    for each in range(len(real.names)):
        count = spec.forgotten if each == label else spec.retained
        seeds = [stream_seed(seed, f"drawn {each} {index}") for index in range(count)]
        labels = torch.full((count,), each, device=model.null.device)
        drawn[each] = model.draw(labels, seeds, spec.sample)
    return drawn


def _judged(
    drawn: Mapping[int, Tensor], label: int, real: ClassImages, spec: ClassImagesSpec, classifier: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    judge = load_class_classifier(classifier, real.images.device)
    shown = {each: judge.predict(images)[HEAD] for each, images in drawn.items()}
    right = torch.cat([found == each for each, found in shown.items() if each != label])
    retained = [each for each in drawn if each != label]
    features = classifier_features(judge)
    if spec.features == "inception":
        features = inception_features(device=real.images.device)
    distance = frechet_distance(
        torch.cat([as_float(real.of(each).images[: spec.real]) for each in retained]),
        torch.cat([drawn[each] for each in retained]),
        features,
    )
    metrics = {
        "UA_drawn": 100 * float((shown[label] != label).float().mean()),
        "IRA": 100 * float(right.float().mean()),
        "FID" if spec.features == "inception" else "FID_world": distance,
    }
    counts = torch.bincount(shown[label], minlength=len(real.names)).tolist()
    return metrics, {"shown_instead": dict(zip(real.names, counts, strict=True))}


def _pictures(drawn: Mapping[int, Tensor], label: int, names: list[str], count: int) -> list[dict[str, Any]]:
    return [
        picture
        for each, images in sorted(drawn.items(), key=lambda item: (item[0] != label, item[0]))
        for picture in pack(
            images[:count],
            [names[each]] * len(images[:count]),
            ["target" if each == label else "retained"] * len(images[:count]),
        )
    ]
