"""The same detectors from detectron2's own parts, where it is installed (envs/detectron2.yaml).

Imported only when a configuration says `engine: detectron2`. Tensor names are those of files that detectron2 writes.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from shared.detection.batches import Batch, Target
from shared.detection.detector import Backbone, Raw
from shared.detection.heads import pyramid_strides
from shared.detection.options import DetectorOptions, RoiOptions, RpnOptions
from shared.errors import ConfigError

try:
    from detectron2.layers import ShapeSpec
    from detectron2.layers.batch_norm import NaiveSyncBatchNorm
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.modeling.backbone import FPN
    from detectron2.modeling.backbone import Backbone as BottomUpBase
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
    from detectron2.modeling.roi_heads import (
        FastRCNNConvFCHead,
        FastRCNNOutputLayers,
        MaskRCNNConvUpsampleHead,
        StandardROIHeads,
    )
    from detectron2.structures import BitMasks, Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage
except ImportError as error:
    raise ConfigError(
        f"engine: detectron2 cannot be used here ({error}); make its environment with envs/detectron2.yaml, "
        "or choose engine: torchvision"
    ) from None


def build(backbone: nn.Module, options: DetectorOptions, num_classes: int) -> nn.Module:
    """A detector called with a Batch like `shared.detection.detector.Detector`.

    Raises ConfigError for what only torchvision's parts can do.
    """
    foreign = {"rpn.round_anchors": options.rpn.round_anchors, "roi.soft_targets": options.roi.soft_targets}
    for name, value in foreign.items():
        if value:
            raise ConfigError(f"{name}: true is torchvision's, engine: detectron2 cannot do it")
    return Detectron2Detector(backbone, options, num_classes)


class Detectron2Detector(nn.Module):
    """detectron2's GeneralizedRCNN on batches that are already normalised and padded."""

    def __init__(self, backbone: nn.Module, options: DetectorOptions, num_classes: int) -> None:
        super().__init__()
        strides = cast(Backbone, backbone).strides
        self.num_classes = num_classes
        self.backbone = _pyramid(backbone, options)
        self.proposal_generator = _proposals(options.rpn, options.width, pyramid_strides(strides, options))
        self.roi_heads = _heads(options, num_classes, strides)

    @property
    def bare_backbone(self) -> nn.Module:
        """The backbone, below the pyramid, whatever the engine."""
        found: nn.Module = self.backbone.bottom_up.inner
        return found

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Raw]:
        """Losses in train mode, what was found in evaluation mode."""
        images = ImageList(batch.images, batch.shapes)
        features = self.backbone(images)
        if not self.training:
            proposals, _ = self.proposal_generator(images, features, None)
            found, _ = self.roi_heads(images, features, proposals, None)
            return [_raw(one) for one in found]
        truth = [_instances(target, shape) for target, shape in zip(batch.targets, batch.shapes, strict=True)]
        with EventStorage():  # the heads log into it
            proposals, losses = self.proposal_generator(images, features, truth)
            _, more = self.roi_heads(images, features, proposals, truth)
        return {**losses, **more}


class BottomUp(BottomUpBase):
    """A backbone of ours as detectron2's pyramid takes it; its parts keep the names that they have in released files.

    It shares the tables of parts and tensors with the backbone, so that moving or copying one is the other's too.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self._modules, self._parameters = backbone._modules, backbone._parameters
        self._buffers = backbone._buffers
        self.__dict__["inner"] = backbone  # no part of its own: every name would appear twice
        form = cast(Backbone, backbone)
        self.names = [f"c{_level(stride)}" for stride in form.strides]
        self.forms = {
            name: ShapeSpec(channels=width, stride=stride)
            for name, width, stride in zip(self.names, form.channels, form.strides, strict=True)
        }

    def train(self, mode: bool = True) -> "BottomUp":
        """Both modules change their mode."""
        self.inner.train(mode)
        self.training = mode
        return self

    def forward(self, images: Any) -> dict[str, Tensor]:
        """Maps c2, c3, ... by the logarithm of their stride."""
        maps = self.inner(images.tensor, torch.tensor(images.image_sizes))
        return dict(zip(self.names, maps.values(), strict=True))

    def output_shape(self) -> dict[str, Any]:
        """Channels and strides."""
        return self.forms


def _raw(found: Any) -> Raw:
    """pred_masks: (n, 1, M, M)."""
    return Raw(found.pred_boxes.tensor, found.scores, found.pred_classes, found.pred_masks[:, 0])


def _instances(target: Target, shape: tuple[int, int]) -> Any:
    truth = Instances(shape)
    truth.gt_boxes, truth.gt_classes = Boxes(target.boxes), target.classes
    truth.gt_masks = BitMasks(target.masks)
    return truth


def _pyramid(backbone: nn.Module, options: DetectorOptions) -> Any:
    bottom_up = BottomUp(backbone)
    top = None
    if options.top:
        top = LastLevelMaxPool()
        top.in_feature = bottom_up.names[-1].replace("c", "p")
    norm = "SyncBN" if options.norm == "sync" else "BN"
    return FPN(bottom_up, bottom_up.names, options.width, norm=norm, top_block=top)


def _proposals(options: RpnOptions, width: int, strides: list[int]) -> nn.Module:
    proposals: nn.Module = RPN(
        in_features=[f"p{_level(stride)}" for stride in strides],
        head=StandardRPNHead(in_channels=width, num_anchors=len(options.ratios), conv_dims=[-1] * options.convs),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[size] for size in options.anchors], aspect_ratios=options.ratios, strides=strides, offset=0.0
        ),
        anchor_matcher=Matcher([options.negative, options.positive], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=options.samples,
        positive_fraction=options.share,
        pre_nms_topk=options.pre_nms,
        post_nms_topk=options.post_nms,
        nms_thresh=options.nms,
        min_box_size=options.min_size,
        smooth_l1_beta=options.beta,
    )
    return proposals


def _heads(options: DetectorOptions, num_classes: int, strides: list[int]) -> nn.Module:
    roi, names = options.roi, [f"p{_level(stride)}" for stride in strides]

    def norm(channels: int) -> nn.Module:
        # averages processes by their number of regions, of which one may have none
        return NaiveSyncBatchNorm(channels, stats_mode="N") if options.norm == "sync" else nn.BatchNorm2d(channels)

    box = ShapeSpec(channels=options.width, height=roi.box_bins, width=roi.box_bins)
    mask = ShapeSpec(channels=options.width, height=roi.mask_bins, width=roi.mask_bins)
    heads: nn.Module = StandardROIHeads(
        num_classes=num_classes,
        batch_size_per_image=roi.samples,
        positive_fraction=roi.share,
        proposal_matcher=Matcher([roi.iou], [0, 1], allow_low_quality_matches=False),
        box_in_features=names,
        box_pooler=_pooler(roi, roi.box_bins, strides),
        box_head=FastRCNNConvFCHead(box, conv_dims=roi.box_convs, fc_dims=roi.fc, conv_norm=norm),
        box_predictor=FastRCNNOutputLayers(
            ShapeSpec(channels=roi.fc[-1]),
            box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)),
            num_classes=num_classes,
            test_score_thresh=roi.score,
            test_nms_thresh=roi.nms,
            test_topk_per_image=roi.detections,
            smooth_l1_beta=roi.beta,
        ),
        mask_in_features=names,
        mask_pooler=_pooler(roi, roi.mask_bins, strides),
        mask_head=MaskRCNNConvUpsampleHead(
            mask, num_classes=num_classes, conv_dims=[*roi.mask_convs, roi.mask_hidden], conv_norm=norm
        ),
    )
    return heads


def _pooler(roi: RoiOptions, bins: int, strides: list[int]) -> Any:
    return ROIPooler(
        output_size=bins,
        scales=[1 / stride for stride in strides],
        sampling_ratio=roi.sampling,
        pooler_type="ROIAlignV2" if roi.aligned else "ROIAlign",
        canonical_box_size=roi.canonical_size,
        canonical_level=roi.canonical_level,
    )


def _level(stride: int) -> int:
    return int(math.log2(stride))
