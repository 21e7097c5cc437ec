"""Options of the segmentor: how it is trained, and how it finds masks. Torch-free, so that planning reads them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Options, Positive, Strict
from shared.segmentation.augment.options import Step
from shared.segmentation.options import Part

Whole = Annotated[int, Field(ge=0)]


class Selection(Strict):
    """Keep the epoch with the highest mean PQ of classes on a validation set, prompted with true centroids.

    data: one of the task's training sets. first: epoch (from 1) of the first look; every: epochs between two looks.
    """

    data: str = "validation"
    first: Count = 60
    every: Count = 1
    num_classes: Count = 1


class SegmentorTraining(Part):
    """Fine-tuning of SAM's image encoder and mask decoder on one prompt a nucleus (PromptNucSeg, arXiv:2311.15939).

    augment: steps for an image with its label map; they must end in crops of one size, at most the model's.
    max_targets: nuclei of a crop that are asked for. num_negatives: K, points of neighbouring nuclei beside the own
    one. The learning rate falls tenfold at each of the `milestones` (epochs), or as a half cosine over all steps
    after `warmup` epochs of linear rise. max_grad_norm: None does not clip, as the authors do not; a SAM that is far
    off needs it, for its first gradients would slow down Adam for hundreds of steps. select: None keeps the last epoch.
    """

    build: ClassVar[str] = "papers.promptnucseg.segmentor.training:build"
    train: ClassVar[str] = "papers.promptnucseg.segmentor.training:train"

    augment: list[Step] = []
    max_targets: Count = 20
    num_negatives: Whole = 0
    batch: Count = 16
    epochs: Count = 200
    lr: Positive = 1e-4
    weight_decay: NonNegative = 1e-4
    schedule: Literal["multistep", "cosine", "constant"] = "constant"
    milestones: list[Count] = []
    warmup: NonNegative = 0.0
    max_grad_norm: Positive | None = None
    focal_weight: NonNegative = 20.0
    dice_weight: NonNegative = 1.0
    iou_weight: NonNegative = 1.0
    select: Selection | None = None

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> Self:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'multistep', which needs at least one")
        if self.warmup and self.schedule != "cosine":
            raise ValueError("warmup is read by the schedule 'cosine' only")
        if self.select and self.select.first > self.epochs:
            raise ValueError(f"select.first is {self.select.first}, but there are {self.epochs} epochs")
        return self

    def sets(self) -> list[str]:
        """Names of all the training sets that it reads."""
        return [self.data, *([self.select.data] if self.select else [])]


class InferenceOptions(Options):
    """How the masks of an image's prompts are found.

    window, overlap: pixels of the square windows that larger images are cut into, and how far neighbours overlap; a
    window is at most the model's input. edge_margin: a mask whose box comes this near to a window's side is dropped,
    unless that side is the image's (None: none is). num_negatives: K nearest other prompts of the window as negative
    points. both: with negatives, ask once more without them, and keep the mask of higher predicted IoU.
    passes: `six` averages over two flips and four rotations; `six_official` turns points as the released code does, one
    pixel off their image. nms_iou: of two masks whose boxes overlap by more, the better one stays.
    """

    window: Count = 256
    overlap: Whole = 64
    edge_margin: Whole | None = 7
    num_negatives: Whole = 0
    both: bool = True
    passes: Literal["one", "six", "six_official"] = "one"
    nms_iou: Fraction = 0.5

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} is not below window {self.window}")
        return self
