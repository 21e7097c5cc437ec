"""Masks of a class found from annotated examples, against the true ones: mean IoU of the classes, FB-IoU."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from PIL import Image

from shared.metrics.segmentation.iou import iou
from shared.segmentation.context import Context
from shared.segmentation.episodes.lists import Episode
from shared.segmentation.episodes.metrics import ClassTotals
from shared.segmentation.episodes.predictor import Example, InContext, checked
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.episodes.spec import EpisodesSpec
from shared.segmentation.evaluate.cases import chosen, shown
from shared.segmentation.evaluate.evaluated import Evaluated, ahead, defined, mean
from shared.segmentation.samples import Array


def evaluate_episodes(
    predictor: InContext, source: ClassSource, episodes: Sequence[Episode], spec: EpisodesSpec, context: Context
) -> Evaluated:
    """mIoU (mean over classes of the IoU of all their episodes' pixels together), FB_IoU, and episode_IoU (mean over
    episodes), in percent.

    Consecutive episodes of the same examples share what the method remembers of these. curves: IoU of each class, and
    the digest of the list, which two rows share that were judged on the same episodes. Raises DataError for an example
    whose mask is empty, or for more examples than the method takes.
    """
    wanted = chosen(case_names(source, episodes))
    totals, values, cases = ClassTotals(), [], []
    for asked in _answered(predictor, source, episodes, spec, context.threads):
        name, view = source.classes[asked.episode.label], asked.view
        totals.add(name, asked.found, view.mask, view.ignored)
        values.append(_episode_iou(view, asked.found))
        if asked.number in wanted:
            example = asked.example.image, asked.example.mask
            title = f"{asked.number:04d} {name}"
            cases.append(shown(title, values[-1], view.image, view.mask, asked.found, example=example))
    metrics = {"mIoU": 100 * totals.mean_iou, "FB_IoU": 100 * totals.fb_iou, "episode_IoU": 100 * mean(values)}
    per_class = {name: round(value, 4) for name, value in totals.iou.items()}
    curves = {"class_iou": per_class, "episodes": {"number": len(episodes), "digest": list_digest(source, episodes)}}
    return Evaluated(defined(metrics), {"IoU": values}, cases, "IoU", curves)


def squared(view: View, side: int | None) -> View:
    """A view resized to `side` x `side`, the image bilinearly and the masks to the nearest pixel; None: as it is.

    The image as PIL resizes it, which DiffewS and HSNet do through torchvision; the nearest pixel as torch takes it. A
    mask of which nothing is left marks the pixels that its own fall on.
    """
    if side is None:
        return view
    picture = np.array(Image.fromarray(view.image).resize((side, side), Image.Resampling.BILINEAR))
    rows, columns = (np.arange(side) * before // side for before in view.mask.shape)
    mask = view.mask[rows][:, columns]
    if not mask.any():
        y, x = np.nonzero(view.mask)
        mask[y * side // view.mask.shape[0], x * side // view.mask.shape[1]] = True
    ignored = None if view.ignored is None else view.ignored[rows][:, columns]
    return View(picture, mask, view.name, ignored)


def case_names(source: ClassSource, episodes: Sequence[Episode]) -> list[str]:
    """What episodes are called, for choosing those that figures show."""
    return [f"{number:04d} {source.classes[episode.label]}" for number, episode in enumerate(episodes)]


def list_digest(source: ClassSource, episodes: Sequence[Episode]) -> str:
    """Digest of the names in a list of episodes."""
    named = [[source.classes[e.label], source.names[e.query], *(source.names[i] for i in e.examples)] for e in episodes]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Answered:
    """One episode with what was found. number: in the list; example: the first of its examples."""

    number: int
    episode: Episode
    example: Example
    view: View
    found: Array


def _answered(
    predictor: InContext, source: ClassSource, episodes: Sequence[Episode], spec: EpisodesSpec, threads: int
) -> Iterator[_Answered]:
    """Episodes in their order; those in a row with the same class and examples share a memory."""

    def read(number: int) -> tuple[int, View]:
        return number, squared(source.view(episodes[number].query, episodes[number].label), spec.side)

    queries = ahead(read, range(len(episodes)), threads)
    for (label, images), run in groupby(queries, key=lambda query: _same(episodes[query[0]])):
        examples = [squared(source.view(image, label), spec.side).example for image in images]
        memory = predictor.remember(checked(predictor, examples), source.classes[label] if spec.text else None)
        while batch := list(islice(run, spec.batch)):
            masks = predictor.masks(memory, [view.image for _, view in batch])
            for (number, view), mask in zip(batch, masks, strict=True):
                _check(view, mask)
                yield _Answered(number, episodes[number], examples[0], view, mask)


def _same(episode: Episode) -> tuple[int, tuple[int, ...]]:
    return episode.label, episode.examples


def _check(view: View, mask: Array) -> None:
    """A method's fault, not a user's."""
    if mask.shape != view.mask.shape or mask.dtype != bool:
        raise ValueError(f"{view.name}: a mask {mask.shape} {mask.dtype} of an image {view.mask.shape}, expected bool")


def _episode_iou(view: View, mask: Array) -> float:
    if view.ignored is None:
        return float(iou(mask, view.mask))
    return float(iou(mask & ~view.ignored, view.mask & ~view.ignored))
