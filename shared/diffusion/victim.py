"""Text-to-image models before and after erasing, as stages keep them and rows load them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from shared.data.checkpoints import checkpoint_file
from shared.diffusion.concepts.build import build_concept
from shared.diffusion.concepts.spec import ConceptSpec
from shared.diffusion.diffs import copy_weights, load_diff, save_diff
from shared.diffusion.erasers.context import Erased, GuidanceFor, erase_context, plain_guidance
from shared.diffusion.protocol import REFERENCES
from shared.diffusion.saved import DIFF, SOURCE, read_source
from shared.diffusion.text_to_image import TextToImage, load_text_to_image
from shared.diffusion.victims import load_victim
from shared.files import write_json
from shared.gpu.launch import is_main_process
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.options import parse_options
from shared.training.loop import FitResult
from shared.training.seeds import stream

PIPELINE = "pipeline"
CONCEPT: TypeAdapter[ConceptSpec] = TypeAdapter(ConceptSpec)


@dataclass(frozen=True)
class Victim:
    """A model after erasing: its pipeline, and how its images are guided."""

    pipe: TextToImage
    guidance: GuidanceFor = plain_guidance


def load_model(folder: Path) -> TextToImage:
    """The model that a stage `model` made or names, on the job's device, frozen."""
    source = read_source(folder)
    place = source["checkpoint"] if "checkpoint" in source else folder / PIPELINE
    return load_text_to_image(place, dtype=source.get("dtype", "float32"), device=job_device())


def erase(
    pipe: TextToImage,
    method: str,
    options: Mapping[str, Any],
    concept: ConceptSpec,
    data: str | None,
    seed: int,
    workdir: Path | None = None,
    key: str = "",
) -> Erased:
    """Run an eraser on a model, in place. data: manifest of the world's images; workdir, key: of its checkpoints."""

    def generator(name: str) -> torch.Generator:
        return stream(seed, name)

    context = erase_context(pipe, generator, workdir, key)
    eraser: Callable[..., Erased] = import_path(method)
    target = build_concept(concept, pipe, context, data, seed)
    typed = parse_options(method, dict(options))
    pipe.unet.requires_grad_(True)
    erased = eraser(pipe.unet, target, typed, context)
    pipe.unet.requires_grad_(False).eval()
    return erased


def make_erased(
    recipe: Mapping[str, Any], model_folder: Path, out: Path, workdir: Path | None, key: str
) -> FitResult | None:
    """Erase, and keep the changed weights, or the name of the authors' file; returns what the training cost."""
    if recipe["eraser"] == REFERENCES["released"]:
        if is_main_process():
            write_json(out / SOURCE, {"released": recipe["options"]})
        return None
    pipe = load_model(model_folder)
    base = copy_weights(pipe)
    concept = CONCEPT.validate_python(recipe["concept"])
    erased = erase(pipe, recipe["eraser"], recipe["options"], concept, recipe["data"], recipe["seed"], workdir, key)
    if is_main_process():
        save_diff(out / DIFF, base, pipe)
        write_json(out / SOURCE, {"changed": DIFF})
    return erased.fit


def load_erased(folder: Path, model_folder: Path) -> Victim:
    """The erased model that a stage keeps, on its base."""
    pipe, source = load_model(model_folder), read_source(folder)
    if "released" in source:
        options = source["released"]
        load_victim(checkpoint_file(options["checkpoint"]), pipe, options["part"])
    else:
        load_diff(folder / source["changed"], pipe)
    return Victim(pipe)
