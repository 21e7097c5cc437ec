"""What a detector learns from: an image with boxes, classes and masks of its objects."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from shared.errors import DataError
from shared.segmentation.coco import CocoSource
from shared.segmentation.samples import Array, Instances, Objects, Source

_SMALLEST = 1e-5  # pixels; a box with a shorter side has no area (detectron2's threshold)


@dataclass(frozen=True)
class Example:
    """image: (H, W, 3) uint8. boxes: (n, 4) float32 as x1, y1, x2, y2, x2 and y2 being the first coordinates outside;
    classes: (n,) int64 from 0; masks: (n, H, W) bool."""

    image: Array
    boxes: Array
    classes: Array
    masks: Array

    def __len__(self) -> int:
        return len(self.boxes)


class Examples(Protocol):
    """Training images in a fixed order, read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class SourceExamples:
    """Examples of a segmentation source. Boxes are those of its COCO file, or else the tight ones of its masks.

    Crowd regions are left out, and so is every object whose box or mask has no area: as detectron2 trains.
    only: indices of the images to keep, in this order; annotated: keep images with at least one object only.
    """

    def __init__(self, source: Source, only: list[int] | None = None, annotated: bool = False) -> None:
        self.source = source
        self._indices = list(range(len(source))) if only is None else list(only)
        self._annotated = annotated

    @cached_property
    def indices(self) -> list[int]:
        """Positions in the source of the images that are kept."""
        if not self._annotated:
            return self._indices
        kept = [index for index in self._indices if self._has_objects(index)]
        if not kept:
            raise DataError(f"none of {len(self._indices)} images has an object to learn from")
        return kept

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        position = self.indices[index]
        sample = self.source[position]
        if isinstance(self.source, CocoSource) and isinstance(sample.truth, Objects):
            return coco_example(self.source, position, sample.image, sample.truth)
        if not isinstance(sample.truth, Instances | Objects):
            raise DataError(f"{sample.name}: one soft mask, a detector needs instances")
        crowd = sample.truth.crowd if isinstance(sample.truth, Objects) else np.zeros(len(sample.truth), bool)
        masks = sample.masks
        example = Example(sample.image, tight_boxes(masks), sample.truth.classes, masks)
        return without_empty(keep(example, ~crowd))

    def _has_objects(self, position: int) -> bool:
        source = self.source
        if not isinstance(source, CocoSource):
            return len(SourceExamples(source, [position])[0]) > 0
        # without decoding 118,287 pictures: what COCO tools call an image without annotations
        found = source.coco.imgToAnns.get(source.image_ids[position], [])
        return any(not annotation.get("iscrowd", 0) for annotation in found)


def coco_example(source: CocoSource, index: int, image: Array, objects: Objects) -> Example:
    """Example of one image of a COCO file, with the file's boxes cut at the picture's edge."""
    height, width = image.shape[:2]
    boxes = tight_boxes(objects.masks)
    for number, identity in enumerate(objects.ids):
        given = source.coco.anns[int(identity)].get("bbox")
        if given is not None:
            boxes[number] = corners_of(given, f"{source.path}: annotation {identity}")
    clipped = clip_boxes(boxes, height, width)
    return without_empty(keep(Example(image, clipped, objects.classes, objects.masks), ~objects.crowd))


def corners_of(box: list[float], where: str = "box") -> Array:
    """COCO's x, y, width, height as x1, y1, x2, y2. Raises DataError for anything but four finite numbers."""
    try:
        values = np.asarray(box, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise DataError(f"{where}: bbox {box!r}, expected four numbers x, y, width, height")
    return np.array([values[0], values[1], values[0] + values[2], values[1] + values[3]], np.float32)


def tight_boxes(masks: Array) -> Array:
    """Boxes (n, 4) float32 around masks (n, H, W) bool; an empty mask has the box 0, 0, 0, 0."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for start, axis in ((0, 1), (1, 2)):
        seen = np.asarray(masks.any(axis))
        boxes[:, start] = seen.argmax(1)
        boxes[:, start + 2] = seen.shape[1] - seen[:, ::-1].argmax(1)
    boxes[~masks.any((1, 2))] = 0
    return boxes


def clip_boxes(boxes: Array, height: int, width: int) -> Array:
    """Boxes (n, 4) cut at a picture's edges; one outside has no area then."""
    return np.asarray(np.clip(boxes, 0, np.array([width, height, width, height], np.float32)), np.float32)


def keep(example: Example, chosen: Array) -> Example:
    """The example with the chosen objects (n,) bool."""
    if chosen.all():
        return example
    return replace(example, boxes=example.boxes[chosen], classes=example.classes[chosen], masks=example.masks[chosen])


def without_empty(example: Example) -> Example:
    """The example without objects whose box or mask has no area."""
    boxes = example.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    return keep(example, (sides > _SMALLEST).all(1) & example.masks.any((1, 2)))
