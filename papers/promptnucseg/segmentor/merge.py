"""From the masks of all windows to one label map: the best of each prompt, box suppression, painting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.segmentation.samples import Array


@dataclass(frozen=True)
class Candidates:
    """n masks in an image. prompt: (n,) which prompt each answers. score: (n,) predicted IoU. boxes: (n, 4) int64 as
    x0, y0, x1, y1, the outermost pixels. crops: n masks (y1 - y0 + 1, x1 - x0 + 1) bool.
    """

    prompt: Array
    score: Array
    boxes: Array
    crops: Sequence[Array]

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, chosen: Array) -> "Candidates":
        """Some of them, in the order of the indices."""
        crops = [self.crops[index] for index in chosen]
        return Candidates(self.prompt[chosen], self.score[chosen], self.boxes[chosen], crops)


def joined(parts: Iterable[Candidates]) -> Candidates:
    """All masks of several windows, in their order."""
    found = [Candidates(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.int64), []), *parts]
    return Candidates(
        np.concatenate([part.prompt for part in found]),
        np.concatenate([part.score for part in found]),
        np.concatenate([part.boxes for part in found]),
        [crop for part in found for crop in part.crops],
    )


def best_of_each_prompt(candidates: Candidates) -> Candidates:
    """The mask of highest score for each prompt that has any, by rising prompt; the first of equals."""
    order = np.lexsort((-candidates.score, candidates.prompt))
    _, first = np.unique(candidates.prompt[order], return_index=True)
    return candidates[order[first]]


def suppress(candidates: Candidates, iou: float) -> Candidates:
    """By falling score, each mask removes those whose box overlaps its own by more than `iou`.

    Boxes are measured between the outermost pixels, as in SAM: one of a single row has no area and removes nothing.
    """
    import torch
    from torchvision.ops import nms

    boxes, scores = torch.as_tensor(candidates.boxes, dtype=torch.float32), torch.as_tensor(candidates.score)
    return candidates[nms(boxes, scores.float(), iou).numpy()]


def paint(candidates: Candidates, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Label map (H, W) int32 of ids 1..m, and the (m,) indices of the masks that are visible in it.

    Masks are laid down by rising score, so that the best is on top; the best has the lowest id. One that better masks
    hide altogether has no id.
    """
    order = np.argsort(-candidates.score, kind="stable")
    labels = np.zeros(shape, np.int32)
    for rank in range(len(order) - 1, -1, -1):
        x0, y0, x1, y1 = candidates.boxes[order[rank]]
        labels[y0 : y1 + 1, x0 : x1 + 1][candidates.crops[order[rank]]] = rank + 1
    seen = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(order) + 1)[1:])
    fresh = np.zeros(len(order) + 1, np.int32)
    fresh[seen + 1] = np.arange(1, len(seen) + 1)
    return fresh[labels], order[seen]


def paint_classes(candidates: Candidates, classes: Array, shape: tuple[int, int], num_classes: int) -> Array:
    """(num_classes, H, W) int32: each class of masks (n,) painted on a plane of its own, ids 1..m on each."""
    planes = [paint(candidates[np.flatnonzero(classes == number)], shape)[0] for number in range(num_classes)]
    return np.stack(planes)
