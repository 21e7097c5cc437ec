"""PromptNucSeg (Shui et al., ECCV 2024, arXiv:2311.15939): a point for every nucleus, then a mask for every point.

points = NMS(MAPF(prompter(image)))        one point a nucleus; MAPF drops those that lie on background
masks  = segmentor(image | point, nearest other points as negatives)
labels = paint(box NMS(masks))             the highest predicted IoU on top
"""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from pydantic import model_validator
from torch import nn

from papers.promptnucseg.prompter.model import Prompter
from papers.promptnucseg.prompter.options import PointOptions, PrompterTraining
from papers.promptnucseg.prompter.predict import Points, candidates, on_foreground, suppress
from papers.promptnucseg.segmentor.options import InferenceOptions, SegmentorTraining
from papers.promptnucseg.segmentor.predict import segment
from shared.errors import DataError, UserError
from shared.options import Count
from shared.segmentation.context import Context
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.predictors import Segmented
from shared.segmentation.sam.model import SamModel
from shared.segmentation.samples import Array, Instances


class PromptNucSegOptions(InferenceOptions, PointOptions):
    """What finds the points, and what makes masks of them.

    prompter: None where `prompts` are the `oracle`'s, the centroids of the true nuclei; filter and radius leave those
    alone. segmentor: None is SAM as it is. num_classes: None is the prompter's, or 1 without one.
    """

    prompter: PrompterTraining | None = None
    segmentor: SegmentorTraining | None = None
    prompts: Literal["predicted", "oracle"] = "predicted"
    num_classes: Count | None = None

    @model_validator(mode="after")
    def _prompts_have_a_source(self) -> Self:
        if (self.prompts == "predicted") != (self.prompter is not None):
            raise ValueError("prompts 'predicted' need a prompter, and the oracle's need none")
        if self.prompter and self.num_classes not in (None, self.prompter.num_classes):
            raise ValueError(f"num_classes {self.num_classes}, but the prompter has {self.prompter.num_classes}")
        if self.prompter and self.filter and not self.prompter.aux_weight:
            raise ValueError("filter reads the foreground map, which a prompter with aux_weight 0 does not learn")
        return self

    @property
    def classes(self) -> int:
        """Number of classes of nuclei."""
        return self.num_classes or (self.prompter.num_classes if self.prompter else 1)


class NucleusSegmenter:
    """Both networks. model: the segmentor, or SAM; prompter: None takes the oracle's points.

    `segment` measures `candidate_points` (not background), `kept_points` (on the foreground, if filtered) and
    `prompts` (after suppression).
    """

    def __init__(self, model: SamModel, prompter: Prompter | None, options: PromptNucSegOptions) -> None:
        self.model, self.prompter, self.options = model.eval(), prompter, options

    def segment(self, image: Array, oracle: Instances | None = None) -> Segmented:
        """Every nucleus of an image (H, W, 3) uint8. Raises DataError where the oracle is asked for and not given."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(f"an image must be (H, W, 3) uint8, this one is {image.shape} {image.dtype}")
        points, measured = self.points(image, oracle)
        num_classes = self.options.classes
        if len(points) and points.classes.max() >= num_classes:
            raise DataError(f"a nucleus of class {points.classes.max()}, but num_classes is {num_classes}")
        found = segment(self.model, image, points.xy, points.classes, num_classes, self.options)
        return Segmented(
            labels=found.labels,
            classes=points.classes[found.prompt],
            scores=found.score,
            points=points.xy,
            point_scores=points.scores,
            point_classes=points.classes,
            planes=found.planes,
            measured=measured,
        )

    def points(self, image: Array, oracle: Instances | None = None) -> tuple[Points, dict[str, float]]:
        """The prompts, and how many points each step left."""
        if self.prompter is None:
            if oracle is None:
                raise DataError("prompts 'oracle' are the centroids of the true nuclei, which this image has not")
            xy = centroids(oracle)
            points = Points(xy, np.ones(len(xy), np.float32), oracle.classes)
            return points, dict.fromkeys(("candidate_points", "kept_points", "prompts"), float(len(xy)))
        found = candidates(self.prompter, image)
        kept = on_foreground(found) if self.options.filter else found
        points = suppress(kept, self.options.radius)
        counts = {"candidate_points": len(found), "kept_points": len(kept), "prompts": len(points)}
        return points, {name: float(number) for name, number in counts.items()}


def promptnucseg(
    parts: Mapping[str, nn.Module], options: PromptNucSegOptions, context: Context | None
) -> NucleusSegmenter:
    """PromptNucSeg from its trained parts "prompter" and "segmentor", and "sam" where there is no segmentor."""
    name = "segmentor" if options.segmentor else "sam"
    model, prompter = parts.get(name), parts.get("prompter")
    if not isinstance(model, SamModel):
        raise UserError(f"PromptNucSeg needs '{name}': the task has no `sam`")
    if options.prompter and not isinstance(prompter, Prompter):
        raise UserError("PromptNucSeg has no trained 'prompter' to take its points from")
    assert prompter is None or isinstance(prompter, Prompter)
    return NucleusSegmenter(model, prompter if options.prompter else None, options)
