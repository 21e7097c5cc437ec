"""Views of sources: some samples, several sources in a row, central crops, one sample an instance."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from shared.errors import DataError
from shared.segmentation.samples import Array, Instances, Sample, Source, instances_of


class Subset:
    """The samples `indices` of `source`, in that order."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)

    @cached_property
    def names(self) -> list[str]:
        known = self.source.names
        return [known[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


class Concat:
    """Sources one after the other. prefixes: one a source, put before its names, which may repeat among sources."""

    def __init__(self, sources: Sequence[Source], prefixes: Sequence[str]) -> None:
        self.sources, self.prefixes = list(sources), list(prefixes)
        self.ends = np.cumsum([len(source) for source in sources])

    @cached_property
    def names(self) -> list[str]:
        both = zip(self.prefixes, self.sources, strict=True)
        return [f"{prefix}{name}" for prefix, source in both for name in source.names]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        number = int(np.searchsorted(self.ends, index, "right"))
        source = self.sources[number]
        sample = source[index - int(self.ends[number]) + len(source)]
        return replace(sample, name=f"{self.prefixes[number]}{sample.name}")


class CentralCrop:
    """The central square of `side` pixels of every image; instances are numbered anew, those outside are gone."""

    def __init__(self, source: Source, side: int) -> None:
        self.source, self.side = source, side

    @property
    def names(self) -> list[str]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        height, width = sample.image.shape[:2]
        if min(height, width) < self.side:
            raise DataError(f"{sample.name}: {width}x{height} pixels, smaller than a crop of {self.side}")
        top, left = (height - self.side) // 2, (width - self.side) // 2
        window = slice(top, top + self.side), slice(left, left + self.side)
        truth = _instances(sample)
        inside = instances_of(truth.labels[window], np.concatenate([[0], truth.classes]))
        return replace(sample, image=np.ascontiguousarray(sample.image[window]), truth=inside)


class PerInstance:
    """Every instance of at least `min_area` pixels as a sample: its image, and a mask of 0 or 255.

    Names are `<image>#<id>`. All label maps are read when the length or the names are first asked for.
    """

    def __init__(self, source: Source, min_area: int = 1) -> None:
        self.source, self.min_area = source, min_area

    @cached_property
    def index(self) -> list[tuple[int, int]]:
        """(image, id) of every sample."""
        found = []
        for image in range(len(self.source)):
            areas = np.bincount(_instances(self.source[image]).labels.ravel())
            found += [(image, int(number)) for number in np.flatnonzero(areas >= self.min_area) if number]
        return found

    @cached_property
    def names(self) -> list[str]:
        known = self.source.names
        return [f"{known[image]}#{number}" for image, number in self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        image, number = self.index[index]
        sample = self.source[image]
        mask = np.where(_instances(sample).labels == number, np.uint8(255), np.uint8(0))
        return replace(sample, name=f"{sample.name}#{number}", truth=mask)


def num_instances(sample: Sample) -> int:
    """How many instances a sample has."""
    return len(_instances(sample))


def brightness_gain(sample: Sample) -> float:
    """Mean grey of all instances minus that of the background, in -255..255; NaN without either."""
    inside: Array = _instances(sample).labels > 0
    grey = sample.image.mean(-1)
    return float(grey[inside].mean() - grey[~inside].mean()) if 0 < inside.sum() < inside.size else float("nan")


def _instances(sample: Sample) -> Instances:
    if not isinstance(sample.truth, Instances):
        raise DataError(f"{sample.name}: its truth is a {type(sample.truth).__name__}, expected a label map")
    return sample.truth
