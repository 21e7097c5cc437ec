"""Settings of the detection track's parts; torch-free, so that planning reads them.

The defaults are those of the strong Mask R-CNN recipe on COCO (Ghiasi et al., arXiv:2012.07177; Li et al.,
arXiv:2111.11429) as detectron2 computes it. A smaller detector is the same with other values.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Options, Positive
from shared.segmentation.options import Part
from shared.training.options import ScheduleOptions

Rgb = Annotated[tuple[float, float, float], Field(strict=False)]
Natural = Annotated[int, Field(ge=0)]
Sizes = Annotated[list[Count], Field(min_length=1)]


class RpnOptions(Options):
    """Region proposals.

    anchors: side of the anchors of each level of the pyramid, finest first; ratios: height / width. convs: hidden 3x3
    convolutions. positive, negative: an anchor is an object from that IoU on, background below that; the best anchors
    of an object count whatever their IoU. samples: anchors of an image in the loss, at most `share` of them positive.
    pre_nms: best proposals of a level that are looked at, (training, test); post_nms: of an image that are kept.

    torchvision's own values of the last three: beta 1/9, round_anchors, min_size 1e-3. beta: where the smooth L1 loss
    of boxes turns from square to linear, in normalised offsets; 0 is plain L1. round_anchors: sides to whole pixels.
    min_size: proposals with a smaller side go, in pixels; 0: only those without area.
    """

    anchors: Annotated[list[Positive], Field(min_length=1)] = [32.0, 64.0, 128.0, 256.0, 512.0]
    ratios: Annotated[list[Positive], Field(min_length=1)] = [0.5, 1.0, 2.0]
    convs: Count = 2
    positive: Fraction = 0.7
    negative: Fraction = 0.3
    samples: Count = 256
    share: Fraction = 0.5
    pre_nms: Annotated[tuple[Count, Count], Field(strict=False)] = (2000, 1000)
    post_nms: Annotated[tuple[Count, Count], Field(strict=False)] = (1000, 1000)
    nms: Fraction = 0.7
    beta: NonNegative = 0.0
    round_anchors: bool = False
    min_size: NonNegative = 0.0


class RoiOptions(Options):
    """Box and mask heads.

    box_bins, mask_bins: RoIAlign's cells a side; sampling: points a cell and side, 0: as many as the region needs.
    canonical_size, canonical_level: a region of that side (pixels) is read from that level, level l having stride 2^l
    (Lin et al., arXiv:1612.03144, equation 1). samples, share: regions of an image in the losses, and the most of
    them that are objects (IoU at least `iou`). box_convs, fc, mask_convs: widths of the heads' layers; mask_hidden:
    of the layer that doubles the mask's size. score, nms, detections: test.

    torchvision's own values of the last three: beta 1/9, not aligned, soft_targets. aligned: RoIAlign with the half
    pixel's shift. soft_targets: mask targets as interpolated, else 1 from 0.5 on.
    """

    box_bins: Count = 7
    mask_bins: Count = 14
    sampling: Natural = 0
    canonical_size: Positive = 224.0
    canonical_level: Natural = 4
    samples: Count = 512
    share: Fraction = 0.25
    iou: Fraction = 0.5
    box_convs: list[Count] = [256, 256, 256, 256]
    fc: Sizes = [1024]
    mask_convs: Sizes = [256, 256, 256, 256]
    mask_hidden: Count = 256
    score: Fraction = 0.05
    nms: Fraction = 0.5
    detections: Count = 100
    beta: NonNegative = 0.0
    aligned: bool = True
    soft_targets: bool = False


class DetectorOptions(Options):
    """Mask R-CNN on a pyramid of features.

    engine: `torchvision`, or `detectron2` where it is installed (envs/detectron2.yaml). width: channels of the
    pyramid. top: one more level, every other pixel of the coarsest one, for proposals only. norm: batch statistics of
    one process, or of all (`sync`); with one process they are the same.
    """

    engine: Literal["torchvision", "detectron2"] = "torchvision"
    width: Count = 256
    top: bool = True
    norm: Literal["batch", "sync"] = "sync"
    rpn: RpnOptions = RpnOptions()
    roi: RoiOptions = RoiOptions()


class ResNetOptions(Options):
    """kind: by torchvision's name. frozen_norm: batch statistics and their scales stay as loaded, as is usual with
    pretrained weights and few images a batch; from random weights they must be learned."""

    kind: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    frozen_norm: bool = False


class PixelOptions(Options):
    """Normalisation on the scale 0..255, and the number of pixels of which a batch's sides are multiples."""

    mean: Rgb = (123.675, 116.28, 103.53)
    std: Rgb = (58.395, 57.12, 57.375)
    divisor: Count = 32


class FixedSize(Options):
    """The longer side becomes `size`; the rest of the square is padded. As in the baseline of arXiv:2111.11429.

    one_factor: boxes go back to the image by the larger of the two factors of height and width (its released
    re-implementation), which differ by rounding; else each by its own.
    """

    kind: Literal["fixed"] = "fixed"
    size: Count = 1024
    one_factor: bool = True


class ShortSide(Options):
    """The shorter side becomes `short`, but the longer one at most `longest` pixels."""

    kind: Literal["short"] = "short"
    short: Count = 800
    longest: Count = 1333


class SameSize(Options):
    """Images as they are."""

    kind: Literal["same"] = "same"


InputSize = Annotated[FixedSize | ShortSide | SameSize, Field(discriminator="kind")]


class NoAugment(Options):
    """Images as they are, mirrored with probability `flip`."""

    kind: Literal["none"] = "none"
    flip: Fraction = 0.5


class MultiScale(Options):
    """Detection transformers' augmentation (Carion et al., arXiv:2005.12872).

    With probability `crop` the shorter side becomes one of `crop_shorts`, and a window with sides uniform in
    `crop_sides` is cut out. Then the shorter side becomes one of `shorts`, the longer one at most `longest`.
    recompute_boxes: boxes of what a window leaves of the masks, else the old boxes cut at the window.
    """

    kind: Literal["multi_scale"] = "multi_scale"
    flip: Fraction = 0.5
    crop: Fraction = 0.5
    crop_shorts: Sizes = [400, 500, 600]
    crop_sides: Annotated[tuple[Count, Count], Field(strict=False)] = (384, 600)
    shorts: Sizes = [480, 512, 544, 576, 608, 640, 736, 768, 800]
    longest: Count = 1333
    recompute_boxes: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.crop_sides[0] > self.crop_sides[1]:
            raise ValueError("crop_sides must rise")
        return self


class ScaleJitter(Options):
    """Large-scale jitter (Ghiasi et al., arXiv:2012.07177): the longer side becomes `size` times a factor uniform in
    `scales`, then a window of `size` pixels is taken, or the rest padded. Boxes are those of what is left."""

    kind: Literal["scale_jitter"] = "scale_jitter"
    flip: Fraction = 0.5
    size: Count = 1024
    scales: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.1, 2.0)
    recompute_boxes: bool = True


Augmentation = Annotated[NoAugment | MultiScale | ScaleJitter, Field(discriminator="kind")]


class DetectorTraining(Part):
    """How a detector learns, whatever its backbone: AdamW on whole passes over the images that have objects.

    num_classes: without background. pixels: normalisation and padding, as at test.
    """

    num_classes: Count
    detector: DetectorOptions = DetectorOptions()
    augment: Augmentation = NoAugment()
    pixels: PixelOptions = PixelOptions()
    epochs: Count
    batch: Count
    lr: Positive
    weight_decay: NonNegative = 0.1
    schedule: ScheduleOptions = ScheduleOptions()


class MaskRcnnTraining(DetectorTraining):
    """Mask R-CNN on a ResNet. weights: manifest of torchvision's classifier weights; None: from random ones."""

    build: ClassVar[str] = "shared.detection.baseline:build"
    train: ClassVar[str] = "shared.detection.baseline:train"

    resnet: ResNetOptions = ResNetOptions()
    weights: str | None = None

    def manifests(self) -> list[str]:
        """The pretrained weights."""
        return [self.weights] if self.weights else []


class MaskRcnnOptions(Options):
    """model: the part that is trained."""

    model: MaskRcnnTraining
