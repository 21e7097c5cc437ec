"""A task's concept for a text-to-image model: prompts, anchors and retained prompts, and images in its latent space."""

import csv
from collections.abc import Iterator, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from shared.data.pull import pull
from shared.diffusion.concepts.folders import image_batches, image_files
from shared.diffusion.concepts.spec import ConceptSpec, FoldersConcept, PromptsConcept, WorldConcept
from shared.diffusion.concepts.world import Side, world_side, world_words
from shared.diffusion.erasers.context import Concept, EraseContext
from shared.diffusion.erasers.images import LatentImages
from shared.diffusion.latents import Latents, encode_images
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.world.read import read_world, unit
from shared.errors import ConfigError, DataError
from shared.training.seeds import stream_seed


def build_concept(spec: ConceptSpec, pipe: TextToImage, context: EraseContext, data: str | None, seed: int) -> Concept:
    """The concept of a spec, with images where the spec gives any. Real ones are read and encoded when an eraser first
    asks for them; those that the model draws are drawn here, before anything can change it.

    data: manifest of the world's images; seed: of images that the model draws itself.
    """
    if isinstance(spec, WorldConcept):
        return _of_world(spec, pipe, context, data or "shapes_styles")
    if isinstance(spec, PromptsConcept):
        return _of_prompts(spec, pipe, context, seed)
    if isinstance(spec, FoldersConcept):
        return _of_folders(spec, pipe, context)
    raise ConfigError("a class of a class-conditional model is no concept of a text-to-image model")


def _of_world(spec: WorldConcept, pipe: TextToImage, context: EraseContext, data: str) -> Concept:
    words = world_words(spec)

    def images(name: Side, anchors: Sequence[str] | None = None) -> LatentImages:
        part = read_world(pull(data), "train", pipe.device)
        side = world_side(spec, part.labels, name)
        rows = torch.tensor(side.rows, device=pipe.device)
        latents = encode_images(pipe, unit(part.images[rows]).split(256))
        return _latent_images(latents, side.prompt, side.prompts, context, anchors)

    return Concept(
        spec.name,
        words.prompts,
        words.anchors,
        words.retain,
        forget=cache(partial(images, "concept", words.anchors)),
        anchor=cache(partial(images, "anchor")),
        retained=cache(partial(images, "others")),
    )


def _of_prompts(spec: PromptsConcept, pipe: TextToImage, context: EraseContext, seed: int) -> Concept:
    prompts, anchors = (spec.prompts, spec.anchors) if spec.prompts else _pairs(spec.prompts_file or "")
    if spec.drawn is None:
        return Concept(spec.name, prompts, anchors, spec.retain)
    count, sample = spec.drawn.per_prompt, spec.drawn.sample

    def images(texts: Sequence[str], name: str, replaced: Sequence[str] | None = None) -> LatentImages:
        prompt = [index for index in range(len(texts)) for _ in range(count)]
        seeds = [stream_seed(seed, f"{name} {index}") for index in range(len(prompt))]
        drawn = pipe.generate([texts[index] for index in prompt], seeds, sample)
        return _latent_images(encode_images(pipe, drawn.split(sample.batch)), prompt, texts, context, replaced)

    forget, safe = images(prompts, "drawn concept", anchors), images(anchors, "drawn anchors")
    return Concept(spec.name, prompts, anchors, spec.retain, forget=forget, anchor=safe, retained=safe)


def _pairs(manifest: str) -> tuple[list[str], list[str]]:
    """Columns prompt and anchor of pairs.csv of a manifest."""
    path = pull(manifest) / "pairs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["prompt"], row["anchor"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV file with the columns prompt and anchor ({type(error).__name__})") from None
    if not rows:
        raise DataError(f"{path}: holds no pair of prompts")
    return [prompt for prompt, _ in rows], [anchor for _, anchor in rows]


def _of_folders(spec: FoldersConcept, pipe: TextToImage, context: EraseContext) -> Concept:
    root = pull(spec.manifest) / spec.folder
    own = [folder for folder, name in spec.classes.items() if name == spec.target]
    others = [folder for folder in spec.classes if folder not in own]
    names = [spec.classes[folder] for folder in others]
    prompt, anchor = spec.template.format(name=spec.target), spec.template.format(name=spec.anchor)

    def images(folders: Sequence[str], texts: Sequence[str], replaced: Sequence[str] | None = None) -> LatentImages:
        files = [image_files(root / folder, spec.per_class) for folder in folders]
        of_prompt = [index for index, found in enumerate(files) for _ in found]
        batches = image_batches([file for found in files for file in found], spec.size, batch=8)
        return _latent_images(encode_images(pipe, _on(batches, pipe)), of_prompt, texts, context, replaced)

    retained = [spec.template.format(name=name) for name in names]
    at = names.index(spec.anchor)
    return Concept(
        spec.target,
        [prompt],
        [anchor],
        retained,
        forget=cache(partial(images, own, [prompt], [anchor])),
        anchor=cache(partial(images, [others[at]], [anchor])),
        retained=cache(partial(images, others, retained)),
    )


def _on(batches: Iterator[Tensor], pipe: TextToImage) -> Iterator[Tensor]:
    for batch in batches:
        yield batch.to(pipe.device)


def _latent_images(
    latents: Latents,
    prompt: Sequence[int],
    prompts: Sequence[str],
    context: EraseContext,
    anchors: Sequence[str] | None = None,
) -> LatentImages:
    """Images with the states of their prompts, on the states' device."""
    states = context.encode(prompts)
    on_device = latents.to(states.device)
    return LatentImages(
        on_device.mean.to(states.dtype),
        torch.tensor(prompt, device=states.device),
        states,
        # a linear autoencoder has no posterior: its width is 0
        on_device.std.to(states.dtype) if bool((latents.std > 0).any()) else None,
        context.encode(anchors) if anchors else None,
    )
