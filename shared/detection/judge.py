"""A detector against the true objects: COCO's numbers, and a few pictures for the report."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from shared.detection.detect import Detections, detect
from shared.detection.evaluate import average_precision, results_of
from shared.detection.pictures import mean_mask_iou
from shared.detection.spec import DetectionSpec
from shared.errors import DataError
from shared.segmentation.coco import CocoSource, coco_document, coco_of
from shared.segmentation.context import Context
from shared.segmentation.evaluate.cases import ShownCase, chosen, painted, shown
from shared.segmentation.evaluate.evaluated import Evaluated, defined, mean
from shared.segmentation.samples import Instances, Objects, Sample, Source

if TYPE_CHECKING:
    from pycocotools.coco import COCO

During = Callable[[torch.Generator], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Detecting:
    """A detector as a method returns it. sampling: a context in which the model draws what it sees at test from the
    given generator (MIMDet with fewer tokens); None: nothing is random."""

    model: nn.Module
    sampling: During | None = None


@dataclass(frozen=True)
class Truth:
    """The true objects as pycocotools index them. image_ids: by position in the source; category_ids: by class."""

    coco: "COCO"
    image_ids: list[int]
    category_ids: list[int]


def evaluate(detecting: Detecting, spec: DetectionSpec, context: Context) -> Evaluated:
    """COCO's numbers in percent, `AP_box` to `AR_large_mask`, those left out that no object defines."""
    source = context.open(spec.data)
    truth = truth_of(source, spec.classes)
    draws = spec.draws if detecting.sampling else 1
    values: dict[str, list[float]] = {}
    cases: list[ShownCase] = []
    for number in range(draws):
        during = detecting.sampling(context.generator(f"draw {number}")) if detecting.sampling else nullcontext()
        with during:
            results, cases = _results(detecting.model, source, truth, spec, keep=number == 0, cases=cases)
        for kind, name in (("bbox", "box"), ("segm", "mask")):
            found = average_precision(truth.coco, results, kind, truth.image_ids)  # type: ignore[arg-type]
            for key, value in found.items():
                values.setdefault(f"{key}_{name}", []).append(100 * value)
    metrics = defined({name: mean(of) for name, of in values.items()})
    return Evaluated(metrics, {}, cases, "mask IoU", {"shown": spec.shown})


def truth_of(source: Source, classes: list[str]) -> Truth:
    """The annotations of a source: a COCO file's own, or a document made of what its samples hold.

    Raises DataError for a COCO file with another number of categories.
    """
    inner, indices = getattr(source, "source", source), getattr(source, "indices", range(len(source)))
    if isinstance(inner, CocoSource):
        categories = sorted(inner.coco.cats)
        if len(categories) != len(classes):
            raise DataError(f"{inner.path}: has {len(categories)} categories, evaluate.classes names {len(classes)}")
        return Truth(inner.coco, [inner.image_ids[index] for index in indices], categories)
    objects = [_objects(source[index]) for index in range(len(source))]
    coco = coco_of(coco_document(list(source.names), objects, classes))
    # the document numbers images and categories from 1
    return Truth(coco, list(range(1, len(objects) + 1)), list(range(1, len(classes) + 1)))


def _objects(sample: Sample) -> Objects:
    if isinstance(sample.truth, Objects):
        return sample.truth
    if not isinstance(sample.truth, Instances):
        raise DataError(f"{sample.name}: one soft mask, a detector needs instances")
    number = len(sample.truth)
    return Objects(sample.masks, sample.truth.classes, np.zeros(number, bool), np.arange(1, number + 1))


def _results(
    model: nn.Module, source: Source, truth: Truth, spec: DetectionSpec, keep: bool, cases: list[ShownCase]
) -> tuple[list[dict[str, Any]], list[ShownCase]]:
    """COCO results of all images, and the cases of those that the report shows (`keep`; else those given)."""
    results: list[dict[str, Any]] = []
    kept = chosen(source.names) if keep else set()
    for index, sample, found in _detected(model, source, spec):
        results += results_of(truth.image_ids[index], found, truth.category_ids)
        if index in kept:
            cases = [*cases, _case(sample, found, spec.shown)]
    return results, cases


def _detected(model: nn.Module, source: Source, spec: DetectionSpec) -> Iterable[tuple[int, Sample, Detections]]:
    for start in range(0, len(source), spec.batch):
        samples = [source[index] for index in range(start, min(start + spec.batch, len(source)))]
        found = detect(model, [sample.image for sample in samples], spec.size, spec.pixels)
        for place, (sample, detections) in enumerate(zip(samples, found, strict=True)):
            yield start + place, sample, detections


def _case(sample: Sample, found: Detections, least: float) -> ShownCase:
    masks, above = sample.masks, found.above(least)
    score = mean_mask_iou(above, masks)
    return shown(sample.name, score, sample.image, painted(masks), painted(above.masks, above.scores))
