"""Lists of episodes: drawn once, kept as JSON beside the data, and read back, so that every row, and every paper that
asks for the same, is judged on the same episodes.

Random numbers come from numpy's legacy generator, called as HSNet's data sets call it (`choice` without replacement),
whose stream is frozen: seed 0 gives the episodes that the published COCO-20i and PASCAL-5i numbers stand on, as long as
the lists of images are the published ones.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.disk import disk_errors
from shared.data.pull import data_root, pulled_content
from shared.data.verify import CACHE
from shared.errors import ConfigError, DataError
from shared.files import digest, write_json
from shared.segmentation.data import manifests_of
from shared.segmentation.episodes.source import ClassSource, class_numbers
from shared.segmentation.episodes.spec import DrawSpec, EpisodesSpec

_VERSION = 1  # of the drawing: another number draws all lists anew


class Episode(NamedTuple):
    """label: number of the class; query, examples: numbers of images."""

    label: int
    query: int
    examples: tuple[int, ...]


def kept_episodes(source: ClassSource, spec: EpisodesSpec, root: Path | None = None) -> list[Episode]:
    """The list of a specification: read from `<data>/cache-v1/episodes/<key>.json`, or drawn and written there.

    The key stands for the data (their content), the classes and the draw. Raises DataError for a damaged file.
    """
    manifests = manifests_of(spec.data)
    asked = {
        "version": _VERSION,
        "data": spec.data.model_dump(mode="json"),
        "content": [pulled_content(name, root) for name in manifests],
        "classes": sorted(spec.classes) if spec.classes else None,
        "draw": spec.draw.model_dump(mode="json"),
    }
    path = (root or data_root()) / manifests[0] / CACHE / "episodes" / f"{digest(asked)[:16]}.json"
    if not path.is_file():
        drawn = draw_episodes(source, spec.draw, spec.classes)
        with disk_errors("keep the list of episodes", path.parent):
            write_json(path, {**asked, "episodes": [_named(source, episode) for episode in drawn]})
    return _read(path, source)


def draw_episodes(source: ClassSource, spec: DrawSpec, classes: Sequence[str] | None = None) -> list[Episode]:
    """Episodes of the named classes (None: all). Classes with too few images for an episode are never drawn.

    Raises ConfigError for an unknown class, if no class has enough images, or if the rule does not fit the set.
    """
    least = 2 if spec.self_reference or spec.repeat_examples else spec.shots + 1
    labels = [n for n in class_numbers(source, classes) if len(set(source.members[n])) >= least]
    if not labels:
        raise ConfigError(f"no class has {least} images: one query, and {spec.shots} examples")
    random = np.random.RandomState(spec.seed)
    return list(islice(_RULES[spec.rule](source, spec, labels, random), spec.number))


Random = np.random.RandomState
Drawing = Callable[[ClassSource, DrawSpec, list[int], Random], Iterator[Episode]]


def _by_class(source: ClassSource, spec: DrawSpec, labels: list[int], random: Random) -> Iterator[Episode]:
    while True:
        yield _of_class(source, spec, _one(labels, random), random)


def _by_class_cycle(source: ClassSource, spec: DrawSpec, labels: list[int], random: Random) -> Iterator[Episode]:
    while True:
        for label in labels:
            yield _of_class(source, spec, label, random)


def _of_class(source: ClassSource, spec: DrawSpec, label: int, random: Random) -> Episode:
    query = _one(source.members[label], random)
    return Episode(label, query, _examples(source.members[label], query, spec, random))


def _by_query(source: ClassSource, spec: DrawSpec, labels: list[int], random: Random) -> Iterator[Episode]:
    known = source.queries or [(image, label) for label in labels for image in source.members[label]]
    queries = [(image, label) for image, label in known if label in labels]
    while True:
        for image, label in queries:
            yield Episode(label, image, _examples(source.members[label], image, spec, random))
        if spec.number is None:
            return


def _by_image(source: ClassSource, spec: DrawSpec, labels: list[int], random: Random) -> Iterator[Episode]:
    shown = {image: [n for n in own if n in labels] for image, own in enumerate(source.shown)}
    images = [image for image, own in shown.items() if own]
    while True:
        query = _one(images, random)
        label = _one(shown[query], random)
        yield Episode(label, query, _examples(source.members[label], query, spec, random))


def _by_example(source: ClassSource, spec: DrawSpec, labels: list[int], random: Random) -> Iterator[Episode]:
    for label in labels:
        images = source.members[label]
        examples = tuple(int(image) for image in random.choice(images, spec.shots, replace=False))
        for query in images:
            if query not in examples:
                yield Episode(label, query, examples)


_RULES: dict[str, Drawing] = {
    "class": _by_class,
    "class_cycle": _by_class_cycle,
    "query": _by_query,
    "image": _by_image,
    "example": _by_example,
}


def _one(values: Sequence[int], random: Random) -> int:
    # HSNet's call: without replacement it takes the first of a permutation, which `randint` would not give.
    return int(values[random.choice(len(values), 1, replace=False)[0]])


def _examples(images: Sequence[int], query: int, spec: DrawSpec, random: Random) -> tuple[int, ...]:
    """Images other than the query, drawn one by one until there are enough."""
    if spec.self_reference and len(set(images) - {query}) < 2:
        return (query,)
    found: list[int] = []
    while len(found) < spec.shots:
        image = _one(images, random)
        if image != query and (spec.repeat_examples or image not in found):
            found.append(image)
    return tuple(found)


# ---- as JSON


def _named(source: ClassSource, episode: Episode) -> dict[str, Any]:
    examples = [source.names[image] for image in episode.examples]
    return {"class": source.classes[episode.label], "query": source.names[episode.query], "examples": examples}


def _read(path: Path, source: ClassSource) -> list[Episode]:
    places = {name: number for number, name in enumerate(source.names)}
    labels = {name: number for number, name in enumerate(source.classes)}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["episodes"]
        return [
            Episode(labels[e["class"]], places[e["query"]], tuple(places[n] for n in e["examples"])) for e in listed
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no list of episodes of these data ({error}); delete it, and it is drawn again"
        ) from None
