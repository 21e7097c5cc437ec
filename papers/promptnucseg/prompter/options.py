"""Options of the point prompter; torch-free, so that planning reads them.

Switches between the paper and its released code have the correct algorithm as their default; `full.yaml` sets what made
the published numbers. `released` is the authors' code where it differs from what is meant.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Options, Positive
from shared.segmentation.augment.options import Step
from shared.segmentation.options import Part

Rgb = Annotated[tuple[float, float, float], Field(strict=False)]


class ConvNextSmall(Options):
    """ConvNeXt-small (arXiv:2201.03545): strides 4, 8, 16, 32. weights: manifest that training starts from, or None."""

    kind: Literal["convnext_small"] = "convnext_small"
    weights: str | None = "timm_convnext_small"


class SmallNet(Options):
    """Two 3x3 convolutions a stage, each stage at half the resolution: strides 2, 4, 8, ..."""

    kind: Literal["small"] = "small"
    widths: Annotated[list[Count], Field(min_length=1)] = [16, 32, 64]


Backbone = Annotated[ConvNextSmall | SmallNet, Field(discriminator="kind")]


class PointOptions(Options):
    """From raw predictions to prompts. filter: keep only points on the predicted foreground (MAPF). radius: distance in
    pixels within which the better of two points remains.
    """

    filter: bool = True
    radius: NonNegative = 12.0


class PrompterTraining(Part):
    """The prompter and its training (arXiv:2311.15939, section 3.1).

    Network. width: channels of the feature pyramids; levels: pyramid levels that a point reads; spacing: pixels between
    anchors; dropout: in the heads.
    sampling: where a point lies in a feature map: `aligned` with the pixels it was made of, or as `released`, up to
    half a cell off. mask_head: `released` pads its 1x1 convolution by one and stretches the larger map over the image;
    `aligned` does not.

    Loss. background_weight: beta. distance_weight: gamma. match_distance: alpha, cost of a pixel of distance in
    the matching. aux_weight: of the focal loss on the foreground map; 0: there is no such map, and thus no filter.
    classification: `weighted_mean` divides by the sum of the weights (released code), `anchor_mean` by the number of
    anchors (paper). distance: `squared` (released code, with the weights above) or the `euclidean` norm (paper).

    Training with AdamW. lr: of the total `batch`; the authors take 1e-4 for a batch of 8 and scale it linearly; it is
    constant, or falls as a half cosine over all steps after `warmup` epochs of linear rise. min_visible: a nucleus that
    the augmentation has cut off is asked for at the centroid of the part still seen, if that has so many pixels (as
    images at hand count those at their sides); None: at its own centroid, if that is still seen (released code). ema:
    decay of the average of weights, which is what training returns; the average is a copy for the first `ema_from`
    epochs. validation: training set of the task on which the epoch with the best mean class F1 is chosen, found with
    `points` and hits within `hit_radius` pixels; None: the last epoch.
    """

    build: ClassVar[str] = "papers.promptnucseg.prompter.training:build"
    train: ClassVar[str] = "papers.promptnucseg.prompter.training:train"
    from_sam: ClassVar[bool] = False

    num_classes: Count = 1
    backbone: Backbone = ConvNextSmall()
    width: Count = 256
    levels: Count = 3
    spacing: Count = 8
    dropout: Fraction = 0.1
    sampling: Literal["aligned", "released"] = "aligned"
    mask_head: Literal["aligned", "released"] = "aligned"
    pixel_mean: Rgb = (123.675, 116.28, 103.53)
    pixel_std: Rgb = (58.395, 57.12, 57.375)

    background_weight: Positive = 0.4
    distance_weight: NonNegative = 5e-3
    match_distance: NonNegative = 0.1
    aux_weight: NonNegative = 1.0
    classification: Literal["weighted_mean", "anchor_mean"] = "weighted_mean"
    distance: Literal["squared", "euclidean"] = "squared"

    epochs: Count = 200
    batch: Count = 16
    lr: Positive = 2e-4
    weight_decay: NonNegative = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegative = 0.0
    max_grad_norm: Positive = 0.1
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    ema_from: Annotated[int, Field(ge=0)] = 5
    augment: list[Step] = []
    # left out of a recipe where it is not set: stages trained before it was known are still found
    min_visible: Annotated[Count | None, Field(exclude_if=lambda least: least is None)] = None
    validation: str | None = None
    points: PointOptions = PointOptions(filter=False)
    hit_radius: Positive = 12.0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        num_maps = len(self.backbone.widths) if isinstance(self.backbone, SmallNet) else 4
        if self.levels > num_maps:
            raise ValueError(f"levels is {self.levels}, but the backbone has {num_maps} maps")
        if self.points.filter and not self.aux_weight:
            raise ValueError("points.filter needs the foreground map, which is not learnt with aux_weight 0")
        if self.warmup and self.schedule != "cosine":
            raise ValueError("warmup is read by the schedule 'cosine' only")
        return self

    def sets(self) -> list[str]:
        """What it learns from, and what its epoch is chosen on."""
        return [self.data, *([self.validation] if self.validation else [])]

    def manifests(self) -> list[str]:
        """The backbone's weights."""
        weights = self.backbone.weights if isinstance(self.backbone, ConvNextSmall) else None
        return [weights] if weights else []
