"""Images by class: what episodes are drawn from, for evaluation and for training."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shared.errors import ConfigError, DataError, nearest
from shared.segmentation.episodes.predictor import Example
from shared.segmentation.samples import Array, Objects, Sample, Source


@dataclass(frozen=True)
class View:
    """An image as one class sees it. image: (H, W, 3) uint8; mask: (H, W) bool, all pixels of the class; ignored:
    (H, W) bool, pixels that count neither way, or None for none. name: of the image.
    """

    image: Array
    mask: Array
    name: str
    ignored: Array | None = None

    @property
    def example(self) -> Example:
        """The same as an example. Raises DataError if the mask is empty."""
        return Example(self.image, self.mask, self.name)


class ClassSource(ABC):
    """Images with classes, read when asked for; also a `Source` of the track.

    names: of the images. classes: names of the classes. members: for each class the images that show it, in the order
    in which episodes are drawn from them. queries: (image, class) in the published order, for sets that have one.
    """

    names: list[str]
    classes: list[str]
    members: list[list[int]]
    queries: list[tuple[int, int]] | None = None

    @abstractmethod
    def view(self, image: int, label: int) -> View:
        """Image number `image` as class number `label` sees it."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        labels = self.shown[index]
        views = [self.view(index, label) for label in labels]
        if not views:
            raise DataError(f"{self.names[index]}: shows none of the classes")
        number = len(views)
        masks, classes = np.stack([view.mask for view in views]), np.array(labels, np.int64)
        objects = Objects(masks, classes, np.zeros(number, bool), np.arange(1, number + 1))
        return Sample(self.names[index], views[0].image, objects)

    @cached_property
    def shown(self) -> list[list[int]]:
        """The classes of each image, rising."""
        found: list[list[int]] = [[] for _ in self.names]
        for label, images in enumerate(self.members):
            for image in dict.fromkeys(images):
                found[image].append(label)
        return found


class SampleClasses(ClassSource):
    """An ordinary set of samples by class: a class's mask is all its objects together, crowds included.

    A sample of one soft mask is of the class that its `group` names. classes: names by class number.
    """

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        self.source, self.classes = source, list(classes)
        self.names = list(source.names)
        self.members = [[] for _ in self.classes]
        for index in range(len(source)):
            for label in self._labels(source[index]):
                self.members[label].append(index)

    def view(self, image: int, label: int) -> View:
        sample = self.source[image]
        if isinstance(sample.truth, np.ndarray):
            return View(sample.image, sample.masks[0], sample.name)
        return View(sample.image, sample.masks[sample.truth.classes == label].any(0), sample.name)

    def _labels(self, sample: Sample) -> list[int]:
        if isinstance(sample.truth, np.ndarray):
            return [self.classes.index(sample.group)]
        labels = np.unique(sample.truth.classes).tolist()
        if labels and labels[-1] >= len(self.classes):
            raise DataError(f"{sample.name}: has class {labels[-1]}, and the set names {len(self.classes)} classes")
        return labels


def class_numbers(source: ClassSource, names: Sequence[str] | None) -> list[int]:
    """Numbers of the named classes, in the order of the source; None: of all that any image shows.

    Raises ConfigError for an unknown name, or if no class is left.
    """
    for name in names or []:
        if name not in source.classes:
            raise ConfigError(f"class '{name}' is not in the data{nearest(name, source.classes)}")
    wanted = [number for number, name in enumerate(source.classes) if names is None or name in names]
    found = [number for number in wanted if source.members[number]]
    if not found:
        raise ConfigError(f"no image shows any of the classes {', '.join(source.classes[n] for n in wanted)}")
    return found


def pure_images(source: ClassSource, numbers: Sequence[int]) -> list[int]:
    """The images that show at least one of the classes `numbers`, and no other."""
    wanted = set(numbers)
    return [image for image, labels in enumerate(source.shown) if labels and wanted.issuperset(labels)]


@dataclass(frozen=True)
class Pair:
    """A training episode: find in `query` what the `examples` show. label: number of the class; name: its name."""

    query: View
    examples: list[View]
    label: int
    name: str


class EpisodeSource:
    """Training episodes. A random class, a random query of it, and as many random other images as examples, all with
    equal probability (HSNet, DiffewS); `by_image`: a random image, then a random class of it (SegIC).

    classes: only these, by name; what else an image shows is background, unless `pure` leaves such images out. A class
    with too few images is never drawn; examples differ from the query and from each other. Raises ConfigError if none
    has enough.
    """

    def __init__(
        self,
        source: ClassSource,
        classes: Sequence[str] | None = None,
        most_shots: int = 1,
        by_image: bool = False,
        pure: bool = False,
    ) -> None:
        numbers = class_numbers(source, classes)
        self.source, self.by_image, self.most_shots = source, by_image, most_shots
        allowed = set(pure_images(source, numbers) if pure else range(len(source)))
        self.images = {n: sorted(allowed.intersection(source.members[n])) for n in numbers}
        self.images = {n: images for n, images in self.images.items() if len(images) > most_shots}
        if not self.images:
            raise ConfigError(f"no class has more than {most_shots} images, one of them the query")
        self.labels = list(self.images)
        self.classes = [source.classes[label] for label in self.labels]
        of_image: dict[int, list[int]] = {}
        for label, images in self.images.items():
            for image in images:
                of_image.setdefault(image, []).append(label)
        self.of_image = dict(sorted(of_image.items()))
        self.queries = list(self.of_image)

    def __len__(self) -> int:
        """Number of images that may be a query: one pass over them is an epoch."""
        return len(self.queries)

    def draw(self, rng: np.random.Generator, shots: int = 1) -> Pair:
        """One episode. shots: at most `most_shots`."""
        if self.by_image:
            return self.around(int(rng.integers(len(self.queries))), rng, shots)
        label = self.labels[int(rng.integers(len(self.labels)))]
        return self._pair(label, int(rng.choice(self.images[label])), rng, shots)

    def around(self, position: int, rng: np.random.Generator, shots: int = 1) -> Pair:
        """One episode whose query is image number `position` of the `len(self)` queries, of a random class of it."""
        query = self.queries[position]
        labels = self.of_image[query]
        return self._pair(labels[int(rng.integers(len(labels)))], query, rng, shots)

    def _pair(self, label: int, query: int, rng: np.random.Generator, shots: int) -> Pair:
        if not 1 <= shots <= self.most_shots:
            raise ValueError(f"{shots} shots, and this source draws 1 to {self.most_shots}")
        others = [image for image in self.images[label] if image != query]
        examples = rng.choice(others, shots, replace=False).tolist()
        views = [self.source.view(image, label) for image in examples]
        return Pair(self.source.view(query, label), views, label, self.source.classes[label])
