"""How a row of the segmentation track is evaluated; torch-free, so that planning reads it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Positive, Strict
from shared.segmentation.data import ConcatData, DataSpec, ZoomSpec, manifests_of
from shared.segmentation.episodes.spec import EpisodesSpec, VideoSpec


class PromptSpec(Strict):
    """What a promptable model is asked by; drawn from the true mask of each object (HQ-SAM, arXiv:2306.01567).

    kind: the tight `box`; the `interior_point`, farthest from the object's outside; `num` random `points` of the
    object; `points_and_background`: besides, `negatives` random points outside the object, labelled as background.
    noise: of boxes, 0..1: centres move by U(-1, 1) * side / 2 * noise, sides change by U(-1, 1) * side * noise.
    """

    kind: Literal["box", "points", "interior_point", "points_and_background"] = "box"
    num: Count | None = None
    negatives: Count | None = None
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        has_points = self.kind in {"points", "points_and_background"}
        if has_points != (self.num is not None):
            raise ValueError(
                f"num: prompts of kind '{self.kind}' {'need' if has_points else 'have'} no number of points"
            )
        has_negatives = self.kind == "points_and_background"
        if has_negatives != (self.negatives is not None):
            raise ValueError("negatives: these and the kind 'points_and_background' go together")
        if self.noise and self.kind != "box":
            raise ValueError(f"noise: that of boxes, and the kind is '{self.kind}'")
        return self

    @property
    def is_random(self) -> bool:
        """Whether two drawings differ."""
        return self.num is not None or self.noise > 0


class PromptedSpec(Strict):
    """Masks of prompted objects against the true ones.

    trials: how often random prompts are drawn; metrics are means over the trials. batch: images of one encoder call.
    keep_aspect: fit the longer side of an image and pad, as SAM's predictor does, instead of stretching the image to
    the model's square, as HQ-SAM is evaluated. threshold: a pixel is inside if its logit is higher. resolution: masks
    are compared in pixels of the original image, or of the model's input. average: metrics are means over all objects,
    or, of several sets (data of the kind `concat`), means of the sets' own metrics. zoom: a promptable model sees each
    box in a window of its own, and the window's mask is put back into the picture; methods without a model see whole
    pictures as ever.
    """

    kind: Literal["prompted"] = "prompted"
    data: DataSpec
    prompt: PromptSpec = PromptSpec()
    trials: Count = 1
    batch: Count = 8
    keep_aspect: bool = False
    threshold: float = 0.0
    resolution: Literal["original", "input"] = "original"
    average: Literal["objects", "sets"] = "objects"
    zoom: ZoomSpec | None = None

    @model_validator(mode="after")
    def _has_sets(self) -> Self:
        if self.average == "sets" and (not isinstance(self.data, ConcatData) or self.data.limit is not None):
            raise ValueError("average: 'sets' needs data of the kind 'concat', without a limit")
        return self

    @model_validator(mode="after")
    def _zooms_in_on_boxes(self) -> Self:
        if self.zoom and (self.prompt.kind != "box" or self.keep_aspect or self.resolution != "original"):
            raise ValueError("zoom: takes prompts of kind 'box', resolution 'original' and no keep_aspect")
        return self

    @property
    def num_trials(self) -> int:
        """Drawings of prompts: one where nothing is random."""
        return self.trials if self.prompt.is_random else 1

    def manifests(self) -> list[str]:
        """Data manifests that the evaluation reads."""
        return manifests_of(self.data)


class InstancesSpec(Strict):
    """Instances found without prompts against the true ones.

    radius: a detected point hits a true centroid at most so many pixels away. classes: names of the classes, in the
    order of their numbers (letters, digits, `_`; they become parts of metric names). tissues: images have groups, and
    bPQ and mPQ are means over these.
    """

    kind: Literal["instances"] = "instances"
    data: DataSpec
    radius: Positive = 12.0
    classes: Annotated[list[Annotated[str, Field(pattern=r"^\w+$")]], Field(min_length=1)] = ["nucleus"]
    tissues: bool = False

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: names one twice")
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def manifests(self) -> list[str]:
        """Data manifests that the evaluation reads."""
        return manifests_of(self.data)


class DetectorSpec(Strict):
    """Boxes of a detector: a COCO result file (image_id, category_id, bbox as xywh, score) in a manifest's folder.

    class_agnostic: boxes of all categories count as the one category of the annotations.
    """

    manifest: str
    file: str
    class_agnostic: bool = False


class DetectionsSpec(Strict):
    """COCO average precision of masks that a promptable model makes of a detector's boxes; data: a COCO set.

    score: what ranks the masks, the detector's score alone or its `product` with the model's predicted IoU, as
    Prompt-Segment-Anything has it, on which HQ-SAM's COCO numbers stand. strict: Boundary AP at a boundary of 1 % of
    the diagonal, too. max_boxes: so many of an image's boxes, the best first.
    """

    kind: Literal["detections"] = "detections"
    data: DataSpec
    detector: DetectorSpec
    score: Literal["detector", "product"] = "product"
    strict: bool = False
    max_boxes: Count = 100

    def manifests(self) -> list[str]:
        """Manifests that the evaluation reads: annotations, images, and boxes."""
        return [*manifests_of(self.data), self.detector.manifest]


EvaluationSpec = PromptedSpec | InstancesSpec | DetectionsSpec | EpisodesSpec | VideoSpec
