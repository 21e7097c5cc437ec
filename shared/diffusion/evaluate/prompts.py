"""Prompts that models are judged with: text, seed, guidance, and what the image should show. Torch-free."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.data.pull import pull
from shared.diffusion.concepts.spec import ConceptSpec, FoldersConcept, WorldConcept
from shared.diffusion.evaluate.spec import ClassPrompts, FilePrompts, PromptsSpec, WorldPrompts
from shared.diffusion.world.words import HEADS, prompt_grid
from shared.errors import ConfigError, DataError
from shared.training.seeds import stream_seed


@dataclass(frozen=True)
class Entry:
    """One image to draw. index: its number in the data; target: whether it names the concept; word: 0, or 1 for an
    object's second word; wanted: question -> the class that answers it."""

    index: int
    text: str
    seed: int
    guidance: float
    target: bool
    word: int = 0
    wanted: dict[str, str] = field(default_factory=dict)


def read_prompts(
    spec: PromptsSpec, concept: ConceptSpec, guidance: float, seed: int, tokens: Callable[[str], Sequence[int]]
) -> list[Entry]:
    """The prompts of a spec, in order. guidance: where the data give none; seed: of the images where the data give
    none; tokens: a text -> its tokens without specials.

    Raises ConfigError where concept and prompts do not go together, DataError for a damaged file.
    """
    if isinstance(spec, WorldPrompts):
        return _world(spec, concept, guidance, seed)
    if isinstance(spec, ClassPrompts):
        return _classes(spec, concept, guidance)
    return _file(spec, tokens)


def _world(spec: WorldPrompts, concept: ConceptSpec, guidance: float, seed: int) -> list[Entry]:
    column = {"object": 1, "style": 2, "colour": 3}
    named = (concept.of, concept.name) if isinstance(concept, WorldConcept) else _colour_of(concept)
    found: list[Entry] = []
    for word in spec.words:
        for text, *labels in prompt_grid(word):
            wanted = dict(zip(column, labels, strict=True))
            target = wanted[named[0]] == named[1]
            if spec.only == "concept" and not target:
                continue
            for _ in range(spec.repeats):
                index = len(found)
                found.append(Entry(index, text, stream_seed(seed, f"image {index}"), guidance, target, word, wanted))
    return found


def _colour_of(concept: ConceptSpec) -> tuple[str, str]:
    """Question and class of a concept that is given by prompts: a word of the world."""
    name = getattr(concept, "name", "")
    found = next((kind for kind, names in HEADS.items() if name in names), None)
    if found is None:
        raise ConfigError(f"evaluate: prompts of the world do not show whether '{name}' is there; give other prompts")
    return found, name


def _classes(spec: ClassPrompts, concept: ConceptSpec, guidance: float) -> list[Entry]:
    name = concept.target if isinstance(concept, FoldersConcept) else getattr(concept, "name", "")
    if name not in spec.seeds:
        raise ConfigError(f"evaluate: the concept '{name}' is none of the classes that images are drawn of")
    found: list[Entry] = []
    for each, first in spec.seeds.items():
        wanted = {"class": spec.labels.get(each, each)}
        for number in range(spec.count):
            text = spec.template.format(name=each)
            found.append(Entry(len(found), text, first + number, guidance, each == name, 0, wanted))
    return found


def _file(spec: FilePrompts, tokens: Callable[[str], Sequence[int]]) -> list[Entry]:
    path = pull(spec.manifest) / spec.file
    found = []
    for index, row in enumerate(_rows(path)[: spec.first]):
        try:
            seed = int(float(row["evaluation_seed"]))
            guidance = float(row.get("evaluation_guidance") or spec.guidance)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}, row {index}: no readable evaluation_seed or evaluation_guidance") from None
        if len(tokens(row["prompt"])) <= spec.most_tokens:
            found.append(Entry(index, row["prompt"], seed, guidance, target=spec.names_concept))
    if not found:
        raise DataError(f"{path}: no prompt of at most {spec.most_tokens} tokens")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no readable CSV file ({type(error).__name__})") from None
    if not rows or "prompt" not in rows[0]:
        raise DataError(f"{path}: no column 'prompt'")
    return rows
