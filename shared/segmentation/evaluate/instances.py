"""Instances found without prompts against the true ones, as nucleus segmentation is evaluated (PromptNucSeg,
arXiv:2311.15939)."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.detection import Counts, match_points, mean_class_f1
from shared.metrics.segmentation.instances import aji, aji_plus, dice, ensemble_dice, overlaps, panoptic_quality
from shared.metrics.segmentation.pannuke import class_pq, pannuke_quality
from shared.segmentation.context import Context
from shared.segmentation.evaluate.cases import ShownCase, chosen, shown
from shared.segmentation.evaluate.evaluated import Evaluated, ahead, defined, mean
from shared.segmentation.evaluate.spec import InstancesSpec
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.predictors import Segmented, Segmenter
from shared.segmentation.samples import Array, Instances, Sample, Source

_PER_IMAGE = ("AJI", "AJI_plus", "DQ", "SQ", "PQ", "Dice", "ensemble_Dice")


@dataclass(frozen=True)
class Points:
    """Detected points of one image against the true centroids.

    scores, classes: (p,); hits: (p,) bool, whether a point took a true centroid of its own class; num_true:
    (num_classes,) true centroids of each class. counts: without regard to classes.
    """

    scores: Array
    classes: Array
    hits: Array
    num_true: Array
    counts: Counts


@dataclass(frozen=True)
class Judged:
    """Values of one image: by name, NaN where undefined; pq_of_class: (num_classes,)."""

    values: dict[str, float]
    pq_of_class: Array
    group: str
    points: Points
    measured: dict[str, float]
    case: ShownCase | None


def evaluate_instances(segmenter: Segmenter, source: Source, spec: InstancesSpec, context: Context) -> Evaluated:
    """AJI, AJI+, DQ, SQ, PQ, Dice, ensemble Dice (means over images; without a true instance an image is left out),
    precision, recall and F1 of points (of all images together, percent), and average precision of points.

    With several classes, or with tissues, also class F1 (percent), bPQ, mPQ and the PQ of each class, `PQ_<class>`.
    What a method counts itself (`Segmented.measured`) is summed over images and recorded through `context.measure`.
    """
    wanted = chosen(source.names)
    judged = []
    # Files are read ahead; the method itself sees one image after the other.
    for index, sample in enumerate(ahead(source.__getitem__, range(len(source)), context.threads)):
        truth = _truth(sample, spec)
        found = segmenter.segment(sample.image, truth)
        _check(sample, found, spec)
        judged.append(_judged(sample, truth, found, spec, index in wanted))
    for name, value in _sums(judged).items():
        context.measure(name, value)
    per_image = {name: [j.values[name] for j in judged] for name in _PER_IMAGE}
    metrics = {name: mean(values) for name, values in per_image.items()}
    metrics |= _detection([j.points for j in judged], spec)
    curves: dict[str, Any] = {}
    if spec.tissues or spec.num_classes > 1:
        of_classes, curves = _pannuke(judged, spec)
        metrics |= of_classes
    cases = [j.case for j in judged if j.case is not None]
    return Evaluated(defined(metrics), per_image, cases, "AJI", curves)


def _truth(sample: Sample, spec: InstancesSpec) -> Instances:
    if not isinstance(sample.truth, Instances):
        raise DataError(f"{sample.name}: its truth is no label map; kind 'instances' needs a data set of instances")
    if sample.truth.classes.max(initial=0) >= spec.num_classes:
        highest = int(sample.truth.classes.max())
        raise DataError(
            f"{sample.name}: has an instance of class {highest}, and evaluate.classes names {spec.num_classes}"
        )
    if spec.tissues and not sample.group:
        raise DataError(f"{sample.name}: has no tissue to average by; set evaluate.tissues to false")
    return sample.truth


def _check(sample: Sample, found: Segmented, spec: InstancesSpec) -> None:
    """A method's fault, not a user's."""
    if found.labels.shape != sample.image.shape[:2]:
        raise ValueError(f"{sample.name}: label map {found.labels.shape} of an image {sample.image.shape[:2]}")
    if found.planes is None and spec.num_classes > 1:
        raise ValueError(f"{sample.name}: no class planes, and there are {spec.num_classes} classes")


def _judged(sample: Sample, truth: Instances, found: Segmented, spec: InstancesSpec, is_shown: bool) -> Judged:
    table = overlaps(truth.labels, found.labels)
    quality = panoptic_quality(table)
    values = (aji(table), aji_plus(table), quality.dq, quality.sq, quality.pq, dice(table), ensemble_dice(table))
    per_class = np.array([quality.pq])
    if found.planes is not None:
        per_class = class_pq(_planes(truth, spec.num_classes), found.planes)
    true = centroids(truth)
    taken = match_points(found.points, found.point_scores, true, spec.radius)
    case = None
    if is_shown:
        points = _points_of_case(found.points, taken, true)
        case = shown(sample.name, values[0], sample.image, truth.labels, found.labels, points)
    return Judged(
        dict(zip(_PER_IMAGE, values, strict=True)),
        per_class,
        sample.group if spec.tissues else "",
        _points(truth, true, found, taken, spec),
        found.measured,
        case,
    )


def _planes(truth: Instances, num_classes: int) -> Array:
    """(num_classes, H, W) label maps of the true instances of each class."""
    of_id = np.concatenate([[-1], truth.classes])[truth.labels]
    return np.stack([np.where(of_id == number, truth.labels, 0) for number in range(num_classes)])


def _points(truth: Instances, true: Array, found: Segmented, taken: Array, spec: InstancesSpec) -> Points:
    """true: (n, 2) centroids; taken: (p,) that which each point takes without regard to classes, or -1."""
    hits = np.zeros(len(found.points), bool)
    for number in range(spec.num_classes):
        mine, theirs = found.point_classes == number, truth.classes == number
        hits[mine] = match_points(found.points[mine], found.point_scores[mine], true[theirs], spec.radius) >= 0
    num_hit = int((taken >= 0).sum())
    counts = Counts(num_hit, len(taken) - num_hit, len(true) - num_hit)
    num_true = np.bincount(truth.classes, minlength=spec.num_classes)
    return Points(found.point_scores, found.point_classes, hits, num_true, counts)


def _points_of_case(points: Array, taken: Array, true: Array) -> dict[str, Array]:
    """Points that hit a centroid of any class, those that do not, and centroids that nothing hit."""
    missed = np.setdiff1d(np.arange(len(true)), taken)
    return {"hit": points[taken >= 0], "false": points[taken < 0], "missed": true[missed]}


def _detection(points: Sequence[Points], spec: InstancesSpec) -> dict[str, float]:
    total = sum((p.counts for p in points), Counts())
    metrics = {"precision": 100 * total.precision, "recall": 100 * total.recall, "F1": 100 * total.f1}
    if spec.num_classes > 1:
        metrics["class_F1"] = 100 * mean_class_f1([_of_class(points, number) for number in range(spec.num_classes)])
    metrics["mAP_points"] = mean_average_precision(points, spec.num_classes)
    return metrics


def _of_class(points: Sequence[Points], number: int) -> Counts:
    hits = sum(int(p.hits[p.classes == number].sum()) for p in points)
    found = sum(int((p.classes == number).sum()) for p in points)
    return Counts(hits, found - hits, sum(int(p.num_true[number]) for p in points) - hits)


def mean_average_precision(points: Sequence[Points], num_classes: int) -> float:
    """Mean over the classes with a true centroid of the average precision of points over all images, in 0..1.

    A point is right if it took a true centroid of its class, matched image by image as for F1. NaN without centroids.
    """
    scores, classes, hits = (
        np.concatenate([np.zeros(0, kind), *(getattr(p, name) for p in points)])
        for name, kind in (("scores", float), ("classes", int), ("hits", bool))
    )
    num_true = sum((p.num_true for p in points), np.zeros(num_classes, int))
    of_class = [(scores[classes == number], hits[classes == number]) for number in range(num_classes)]
    return mean([average_precision(*own, number) for own, number in zip(of_class, num_true, strict=True)])


def average_precision(scores: Array, hits: Array, num_true: int) -> float:
    """Sum of precision times the rise of recall over the falling scores that occur, without interpolation.

    scores: (p,); hits: (p,) bool; recall is hits / `num_true`, NaN for 0. Points of equal score count together, so
    that their order does not matter. (scikit-learn has the same, without true centroids that no point took; importing
    it would double the time of a small row.)
    """
    if not num_true:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    right = np.cumsum(hits[order])[ends]
    return float((np.diff(right, prepend=0) * right / (ends + 1)).sum() / num_true)


def _pannuke(judged: Sequence[Judged], spec: InstancesSpec) -> tuple[dict[str, float], dict[str, Any]]:
    quality = pannuke_quality(
        np.array([j.values["PQ"] for j in judged]), np.stack([j.pq_of_class for j in judged]), [j.group for j in judged]
    )
    per_class = {f"PQ_{name}": float(value) for name, value in zip(spec.classes, quality.per_class, strict=True)}
    tissues = {
        name: {key: round(value, 4) for key, value in defined({"bPQ": both[0], "mPQ": both[1]}).items()}
        for name, both in quality.tissues.items()
    }
    return {"bPQ": quality.bpq, "mPQ": quality.mpq, **per_class}, {"tissues": tissues} if spec.tissues else {}


def _sums(judged: Sequence[Judged]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for one in judged:
        for name, value in one.measured.items():
            total[name] += float(value)
    return dict(total)
