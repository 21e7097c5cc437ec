"""What a method of in-context segmentation returns: it looks at annotated examples once, and then finds the same in
other images.

memory = predictor.remember([Example(image, mask)], "nucleus")     # features of the examples, computed once
found = predictor.masks(memory, images)                            # bool masks, each of its image's own size
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from shared.errors import DataError
from shared.segmentation.samples import Array


@dataclass(frozen=True)
class Example:
    """An annotated image. image: (H, W, 3) uint8; mask: (H, W) bool, what is to be found; name: of the image.

    Raises DataError for other shapes or types, and for a mask that marks nothing.
    """

    image: Array
    mask: Array
    name: str = "example"

    def __post_init__(self) -> None:
        check_image(self.image, self.name)
        if self.mask.dtype != bool or self.mask.shape != self.image.shape[:2]:
            raise DataError(
                f"{self.name}: its mask is {self.mask.shape} {self.mask.dtype}, expected {self.image.shape[:2]} bool"
            )
        if not self.mask.any():
            raise DataError(f"{self.name}: its mask is empty, so it shows nothing to look for")


class InContext(Protocol):
    """Finds in images what examples show. most_examples: so many examples at a time (None: any number).

    Examples and images may differ in size, among themselves and from each other.
    """

    most_examples: int | None

    def remember(self, examples: Sequence[Example], name: str | None = None) -> Any:
        """What the method keeps of the examples, at least one, of one class; `masks` takes it any number of times.

        name: of the class, for methods that read text; None: unknown, or not to be told.
        """
        ...

    def masks(self, memory: Any, images: Sequence[Array]) -> list[Array]:
        """Masks (H, W) bool of images (H, W, 3) uint8, each of its image's own size."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """A method that also says how sure it is of each pixel: objects of a video then compete for it."""

    def scores(self, memory: Any, images: Sequence[Array]) -> list[Array]:
        """(H, W) float32 in 0..1: how likely a pixel of the mask is in the object; 0 outside the mask."""
        ...


@runtime_checkable
class Follows(Protocol):
    """A method with a way of its own to follow objects through a video."""

    def follow(self, frames: Iterable[Array], given: Mapping[int, Array]) -> Iterator[Array]:
        """A label map (H, W) int32 for every frame, 0 background, in the order of the frames.

        frames: (H, W, 3) uint8. given: number of a frame -> label map with the objects that are annotated there; frame
        0 is among them, and an object that appears later is annotated where it first appears. An object keeps its id.
        """
        ...


def checked(predictor: InContext, examples: Sequence[Example]) -> Sequence[Example]:
    """The examples, if the method takes as many. Raises DataError otherwise."""
    if not examples:
        raise DataError("no example is given: an in-context method needs at least one annotated image")
    most = predictor.most_examples
    if most is not None and len(examples) > most:
        raise DataError(f"{len(examples)} examples, and this method takes at most {most}: leave some out")
    return examples


def check_image(image: Array, name: str = "image") -> None:
    """Raise DataError unless the image is (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"{name}: {image.shape} {image.dtype}, expected an image (H, W, 3) uint8")
