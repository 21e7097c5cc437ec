"""Masks of prompted objects against the true ones, as HQ-SAM is evaluated (arXiv:2306.01567, section 4).

Image and label are resized to the model's square, the prompt comes from the resized label, the mask's logits are
resized bilinearly to the original size and cut at 0, and IoU and Boundary IoU are taken there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import DataError
from shared.metrics.segmentation.boundary import boundary_iou, shares_above
from shared.metrics.segmentation.instances import aji, overlaps, panoptic_quality
from shared.metrics.segmentation.iou import iou
from shared.segmentation.context import Context
from shared.segmentation.evaluate.answers import Answer, Asked, Masker, PlainAnswers, SamAnswers
from shared.segmentation.evaluate.cases import ShownCase, chosen, painted, shown
from shared.segmentation.evaluate.evaluated import Evaluated, ahead, defined, mean
from shared.segmentation.evaluate.prompting import drawn_prompts, seen, soft_objects
from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.evaluate.zoomed import ZoomedAnswers
from shared.segmentation.predictors import Prompted
from shared.segmentation.samples import FOREGROUND, Array, Instances, Source

THRESHOLDS = (50, 60, 70, 80, 90)  # percent of Boundary IoU
CURVE = tuple(round(0.02 * step, 2) for step in range(50))


@dataclass(frozen=True)
class Judged:
    """Values of one image: iou, boundary (trials, n); aji, pq (trials,), NaN unless the truth is a label map."""

    iou: Array
    boundary: Array
    aji: Array
    pq: Array
    case: ShownCase | None


def evaluate_prompted(prompted: Prompted | Masker, source: Source, spec: PromptedSpec, context: Context) -> Evaluated:
    """Mean IoU and Boundary IoU in percent, shares of objects of high Boundary IoU, AJI and PQ of label maps.

    Means are over objects, all alike; a set of one mask an image thus has means over images. AJI and PQ (fractions,
    means over images) are those of the masks painted in ascending predicted IoU, and measured where the truth is a
    label map. Random prompts belong to the seed, the trial and the image's name, not to batches or the order.
    Raises DataError if no image has an object.
    """
    model = _answers(prompted, spec)
    wanted = chosen(source.names)

    def asked(index: int) -> Asked:
        return _asked(source, index, model, spec, context)

    judged: list[Judged] = []
    batch: list[Asked] = []
    for question in ahead(asked, range(len(source)), context.threads):
        batch.append(question)
        if len(batch) == spec.batch or question.index + 1 == len(source):
            judged += [
                _judged(q, answer, q.index in wanted) for q, answer in zip(batch, model.answers(batch), strict=True)
            ]
            batch = []
    return _summary(judged)


def _answers(prompted: Prompted | Masker, spec: PromptedSpec) -> SamAnswers | PlainAnswers:
    if not isinstance(prompted, Prompted):
        return PlainAnswers(prompted)
    return ZoomedAnswers(prompted, spec, spec.zoom) if spec.zoom else SamAnswers(prompted, spec)


def _asked(source: Source, index: int, model: SamAnswers | PlainAnswers, spec: PromptedSpec, context: Context) -> Asked:
    sample = source[index]
    softs = soft_objects(sample)
    picture = model.picture(sample.image)
    size = picture.shape[0], picture.shape[1]
    masks = [seen(soft, size) for soft in softs]
    prompts = [
        drawn_prompts(masks, spec.prompt, context.rng(f"prompts/{trial}/{sample.name}"))
        for trial in range(spec.num_trials)
    ]
    compared = masks if spec.resolution == "input" else [np.asarray(soft > FOREGROUND) for soft in softs]
    shape = size if spec.resolution == "input" else sample.image.shape[:2]
    stacked = np.stack(compared) if compared else np.zeros((0, *shape), bool)
    is_map = isinstance(sample.truth, Instances)
    return Asked(index, sample.name, sample.image, picture, stacked, prompts, is_map)


def _judged(asked: Asked, answer: Answer, is_shown: bool) -> Judged:
    truth = np.broadcast_to(asked.compared, answer.masks.shape)
    num_trials = len(answer.masks)
    if asked.is_map or is_shown:
        labels = [painted(*trial) for trial in zip(answer.masks, answer.scores, strict=True)]
        true_labels = painted(asked.compared)
    instance_values = np.full((2, num_trials), np.nan)
    if asked.is_map:
        tables = [overlaps(true_labels, found) for found in labels]
        instance_values = np.array([[aji(table), panoptic_quality(table).pq] for table in tables]).T
    boundary = boundary_iou(answer.masks, truth)
    case = None
    if is_shown:
        score = mean(instance_values[0]) if asked.is_map else mean(boundary)
        image = asked.image if asked.image.shape[:2] == true_labels.shape else asked.picture
        case = shown(asked.name, score, image, true_labels, labels[0])
    return Judged(iou(answer.masks, truth), boundary, instance_values[0], instance_values[1], case)


def _summary(judged: Sequence[Judged]) -> Evaluated:
    boundary = np.concatenate([np.zeros(0), *(j.boundary.ravel() for j in judged)])
    if not boundary.size:
        raise DataError(f"none of the {len(judged)} images has an object to prompt for; check data and its labels")
    shares = shares_above(boundary, np.array(THRESHOLDS) / 100)
    metrics = {
        "mIoU": 100 * mean(np.concatenate([j.iou.ravel() for j in judged])),
        "mBIoU": 100 * mean(boundary),
        **{f"BIoU_{t}": 100 * float(share) for t, share in zip(THRESHOLDS, shares, strict=True)},
        "AJI": mean([mean(j.aji) for j in judged]),
        "PQ": mean([mean(j.pq) for j in judged]),
    }
    per_image = {
        "IoU": [mean(j.iou) for j in judged],
        "BIoU": [mean(j.boundary) for j in judged],
        "AJI": [mean(j.aji) for j in judged],
        "PQ": [mean(j.pq) for j in judged],
    }
    curve = [round(float(share), 4) for share in shares_above(boundary, np.array(CURVE))]
    cases = [j.case for j in judged if j.case is not None]
    score = "AJI" if "AJI" in defined(metrics) else "Boundary IoU"
    return Evaluated(
        defined(metrics), per_image, cases, score, {"boundary_recall": {"above": list(CURVE), "share": curve}}
    )
