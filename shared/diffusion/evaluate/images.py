"""Images of prompts, judged: how often the concept is drawn, how well everything else, Fréchet distance, CLIP score."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.data.pull import pull
from shared.diffusion.concepts.folders import image_batches, image_files
from shared.diffusion.detectors.judge import Detector
from shared.diffusion.detectors.load import load_detector
from shared.diffusion.detectors.networks import as_bytes
from shared.diffusion.evaluate import frechet
from shared.diffusion.evaluate.pictures import Group, pack
from shared.diffusion.evaluate.prompts import Entry, read_prompts
from shared.diffusion.evaluate.spec import FrechetSpec, ImagesSpec, ReferenceImages
from shared.diffusion.protocol import CLASSIFIER, MODEL
from shared.diffusion.task import Task
from shared.diffusion.victim import Victim
from shared.diffusion.world.read import read_world, unit
from shared.diffusion.world.words import HEADS
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.errors import ConfigError, nearest
from shared.gpu.precision import job_device

FRECHET_NAMES = {"classifier": "FID_world", "inception": "FID", "inception64_cast": "FID_official_cast"}


@dataclass
class Evaluated:
    """metrics by name; extras: small values for figures."""

    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)


def evaluate_images(spec: ImagesSpec, task: Task, victim: Victim, stages: Mapping[str, Path], seed: int) -> Evaluated:
    """Draw the prompts of `spec` with `victim`, and judge them. stages: folders of `model` and `classifier`."""
    pipe = victim.pipe
    entries = read_prompts(spec.prompts, task.concept, spec.sample.guidance, seed, pipe.tokens)
    images = draw(victim, entries, spec)
    found = Evaluated()
    if spec.target is not None:
        detectors = {
            name: load_detector(options, pipe.device, classifier=stages.get(CLASSIFIER))
            for name, options in spec.heads.items()
        }
        found.metrics |= accuracies(answers(detectors, entries, images, pipe.device), entries, spec.target)
    kept = torch.tensor([i for i, entry in enumerate(entries) if not entry.target], dtype=torch.int64)
    if spec.frechet is not None:
        found.metrics |= _frechet(spec.frechet, task, images[kept], stages)
    if spec.clip is not None:
        from shared.diffusion.evaluate.clip import clip_score

        folder = pull(spec.clip.checkpoint) if spec.clip.checkpoint else stages[MODEL] / "clip"
        found.metrics["CLIP_score"] = clip_score(
            folder, images[kept], [entries[int(i)].text for i in kept], pipe.device
        )
    if spec.pictures and not task.scores_only:
        found.extras["pictures"] = _pictures(entries, images, spec.pictures)
    return found


def draw(victim: Victim, entries: Sequence[Entry], spec: ImagesSpec) -> Tensor:
    """Images (N, 3, H, W) uint8 on the CPU, as a file would hold them: the noise of each from its own seed."""
    parts = []
    for start in range(0, len(entries), spec.sample.batch):
        part = entries[start : start + spec.sample.batch]
        prompts, scales = [entry.text for entry in part], [entry.guidance for entry in part]
        rule = victim.guidance(prompts, scales)
        drawn = victim.pipe.generate(prompts, [entry.seed for entry in part], spec.sample, rule)
        parts.append(as_bytes(drawn).cpu())
    return torch.cat(parts)


def batches(images: Tensor, device: torch.device | str, size: int = 50) -> Iterator[Tensor]:
    """Batches in [0, 1] on a device of images (N, 3, H, W) uint8 on the CPU."""
    for part in images.split(size):
        yield unit(part.to(device))


def answers(
    detectors: Mapping[str, Detector],
    entries: Sequence[Entry],
    images: Tensor,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Question -> (N,) bool: whether the image (uint8) shows what its prompt wants. Raises ConfigError for a class that
    a detector does not know. device: of the detectors."""
    found = {}
    for name, detector in detectors.items():
        known = list(detector.classes)
        for entry in entries:
            if name not in entry.wanted:
                raise ConfigError(f"evaluate: prompts do not say what '{name}' is{nearest(name, list(entry.wanted))}")
            if entry.wanted[name] not in known:
                wrong = entry.wanted[name]
                raise ConfigError(f"evaluate: '{wrong}' is no class of the detector '{name}'{nearest(wrong, known)}")
        wanted = torch.tensor([known.index(entry.wanted[name]) for entry in entries])
        scores = torch.cat([detector.scores(part).cpu() for part in batches(images, device)])
        found[name] = scores.argmax(1) == wanted
    return found


def accuracies(right: Mapping[str, Tensor], entries: Sequence[Entry], target: str) -> dict[str, float]:
    """UA_drawn: concept's prompts whose image does not show it; UA_synonym: the same of its other word; IRA: other
    prompts whose image answers `target` rightly; CRA: the mean over all other questions of the same. In percent."""
    named = torch.tensor([entry.target for entry in entries])
    second = torch.tensor([entry.word == 1 for entry in entries])
    values = {}
    for name, rows in (("UA_drawn", named & ~second), ("UA_synonym", named & second)):
        if rows.any():
            values[name] = 100 * float((~right[target][rows]).double().mean())
    if (~named).any():
        values["IRA"] = 100 * float(right[target][~named].double().mean())
        others = [right[name][~named].double().mean() for name in right if name != target]
        if others:
            values["CRA"] = 100 * float(torch.stack(others).mean())
    return values


def _frechet(spec: FrechetSpec, task: Task, drawn: Tensor, stages: Mapping[str, Path]) -> dict[str, float]:
    """Distances of retained images (uint8) to the real ones, which are read batch by batch."""
    values = {}
    for kind in spec.features:
        real, shown = _real(spec.reference, task), batches(drawn, job_device())
        values[FRECHET_NAMES[kind]] = frechet.frechet_distance(real, shown, _features(kind, stages))
    return values


def _real(place: ReferenceImages, task: Task) -> Iterable[Tensor]:
    if not place.folder:
        return _retained_of_world(task, place.manifest).split(500)
    root = pull(place.manifest) / place.folder
    folders = [root / name for name in place.subfolders] or [root]
    files = [file for folder in folders for file in image_files(folder)]
    return image_batches(files, place.size, batch=50)


def _features(kind: str, stages: Mapping[str, Path]) -> nn.Module:
    if kind != "classifier":
        num = 2048 if kind == "inception" else 64
        return frechet.inception_features(num, released_cast=kind == "inception64_cast", device=job_device())
    if CLASSIFIER not in stages:
        raise ConfigError("evaluate.images.frechet: features 'classifier' need a task with a classifier")
    classifier: Any = ShapeClassifier.from_pretrained(stages[CLASSIFIER], local_files_only=True)
    return frechet.classifier_features(classifier.to(job_device()).eval())


def _retained_of_world(task: Task, manifest: str) -> Tensor:
    """Test images of the world without the concept, (N, 3, 32, 32) in [0, 1]."""
    part = read_world(pull(manifest), "test")
    name = getattr(task.concept, "name", "")
    for column, names in enumerate(HEADS.values()):
        if name in names:
            return unit(part.images[part.labels[:, column] != names.index(name)])
    raise ConfigError(f"evaluate.images.frechet: '{name}' is nothing of the world; give a folder of real images")


def _pictures(entries: Sequence[Entry], images: Tensor, number: int) -> list[dict[str, Any]]:
    """The first images of the concept, and of everything else, evenly spread."""
    chosen = []
    for target in (True, False):
        rows = [i for i, entry in enumerate(entries) if entry.target == target]
        places = torch.linspace(0, len(rows) - 1, min(number, len(rows))).round().int().tolist() if rows else []
        chosen += [rows[place] for place in places]
    labels = [entries[i].text for i in chosen]
    groups: list[Group] = ["target" if entries[i].target else "retained" for i in chosen]
    return pack(unit(images[chosen]), labels, groups)
