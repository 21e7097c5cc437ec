"""Generated sets as sources. Samples are fresh arrays; pictures of one channel are repeated to three."""

from functools import cached_property
from pathlib import Path

import numpy as np

from shared.segmentation.folders import load_npy
from shared.segmentation.samples import Array, Instances, Sample


class _Part:
    """`<part>_images.npy` and the truth beside it, memory-mapped; samples are named `<part>_<number>`."""

    def __init__(self, folder: Path, part: str, truth: str) -> None:
        self.part = part
        self.images = load_npy(folder / f"{part}_images.npy", memory_map=True)
        self.truth = load_npy(folder / f"{part}_{truth}.npy", memory_map=True)

    @cached_property
    def names(self) -> list[str]:
        return [f"{self.part}_{index:04d}" for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.images)

    def _image(self, index: int) -> Array:
        image = np.array(self.images[index])
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, -1)


class GeneratedMasks(_Part):
    """A part with one mask of 0 or 255 an image; truth: `masks`, or `fine` or `coarse` where there are both.

    A sample's group is its family of shapes, where the set has families.
    """

    def __init__(self, folder: Path, part: str, truth: str = "masks") -> None:
        super().__init__(folder, part, truth)
        families = folder / f"{part}_families.npy"
        self.groups = load_npy(families).tolist() if families.exists() else [""] * len(self)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.names[index], self._image(index), np.array(self.truth[index]), self.groups[index])


class GeneratedInstances(_Part):
    """A part with a label map an image; all instances are of class 0 unless the set has classes."""

    def __init__(self, folder: Path, part: str) -> None:
        super().__init__(folder, part, "labels")
        path = folder / f"{part}_classes.npy"
        self.classes = load_npy(path) if path.exists() else None

    def __getitem__(self, index: int) -> Sample:
        labels = np.array(self.truth[index], np.int32)
        classes = np.zeros(int(labels.max()), np.int64)
        if self.classes is not None:
            classes = self.classes[index][: len(classes)].astype(np.int64)
        return Sample(self.names[index], self._image(index), Instances(labels, classes))
