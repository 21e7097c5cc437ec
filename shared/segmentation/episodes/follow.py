"""Objects followed through a video by a method that knows only images: each frame is segmented by the examples in the
frames where the objects are given.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from shared.segmentation.episodes.predictor import Example, Follows, InContext, Scoring, checked
from shared.segmentation.samples import Array


def followed(predictor: InContext, frames: Iterable[Array], given: Mapping[int, Array]) -> Iterator[Array]:
    """A label map (H, W) int32 for every frame (`Follows.follow`), by the method's own way if it has one.

    Without one, every object is looked for in every later frame by its own example, which is remembered once. Objects
    compete for a pixel by their scores, or, without scores, the one that was given first keeps it.
    """
    if isinstance(predictor, Follows):
        yield from predictor.follow(frames, given)
        return
    memories: dict[int, Any] = {}
    for number, frame in enumerate(frames):
        labels = fused({key: _score(predictor, memory, frame) for key, memory in memories.items()}, frame.shape[:2])
        if number in given:
            for key in object_ids(given[number]):
                example = Example(frame, given[number] == key, f"object {key} of frame {number}")
                memories.setdefault(key, predictor.remember(checked(predictor, [example]), None))
            labels = np.where(given[number] > 0, given[number], labels)
        yield labels.astype(np.int32)


def object_ids(labels: Array) -> list[int]:
    """The ids of a label map, rising."""
    return [int(key) for key in np.unique(labels) if key > 0]


def fused(scores: Mapping[int, Array], size: tuple[int, ...]) -> Array:
    """Label map (H, W) int32: at each pixel the id with the highest score above 0, of equals the first.

    scores: id -> (H, W) float, 0 outside the object's mask (SegIC: mask times sigmoid of the logit).
    """
    if not scores:
        return np.zeros(size, np.int32)
    stacked = np.stack(list(scores.values()))
    best = np.array(list(scores), np.int32)[stacked.argmax(0)]
    return np.where(stacked.max(0) > 0, best, 0).astype(np.int32)


def _score(predictor: InContext, memory: Any, frame: Array) -> Array:
    if isinstance(predictor, Scoring):
        return predictor.scores(memory, [frame])[0]
    return predictor.masks(memory, [frame])[0].astype(np.float32)
