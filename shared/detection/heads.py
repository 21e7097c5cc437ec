"""Proposals, boxes and masks of Mask R-CNN from torchvision's parts, with detectron2's arithmetic as a choice.

What the options cannot change, against detectron2: background is class 0 and has a box and a mask of its own (81
outputs of 80 classes), and mask targets are read from bitmaps instead of polygons.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from shared.detection.options import DetectorOptions, RoiOptions, RpnOptions
from shared.detection.parts import Anchors, Pooler, norm_layer

TorchTargets = list[dict[str, Tensor]]  # boxes (n, 4), labels (n,) from 1, masks (n, h, w)


def build_pyramid(channels: Sequence[int], options: DetectorOptions) -> FeaturePyramidNetwork:
    """Feature pyramid of maps with those channels, finest first."""
    top = LastLevelMaxPool() if options.top else None
    return FeaturePyramidNetwork(list(channels), options.width, top, norm_layer(options))


def pyramid_strides(strides: Sequence[int], options: DetectorOptions) -> list[int]:
    """Strides of the pyramid's maps, those of the backbone and maybe one more."""
    return [*strides, *([2 * strides[-1]] if options.top else [])]


class _Float32RpnHead(RPNHead):
    """Its outputs become boxes, for which bfloat16 has not enough digits."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [value.float() for value in logits], [value.float() for value in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's RPN; its losses are divided by the number of anchors a batch should sample, as in detectron2."""

    def __init__(self, options: RpnOptions, width: int, strides: Sequence[int]) -> None:
        super().__init__(
            Anchors(options, strides),
            _Float32RpnHead(width, len(options.ratios), options.convs),
            fg_iou_thresh=options.positive,
            bg_iou_thresh=options.negative,
            batch_size_per_image=options.samples,
            positive_fraction=options.share,
            pre_nms_top_n=dict(zip(("training", "testing"), options.pre_nms, strict=True)),
            post_nms_top_n=dict(zip(("training", "testing"), options.post_nms, strict=True)),
            nms_thresh=options.nms,
        )
        self.min_size = options.min_size or torch.finfo(torch.float32).tiny
        self.beta, self.samples = options.beta, options.samples

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Losses of objectness and boxes on the sampled anchors."""
        sampled = [torch.where(torch.cat(part))[0] for part in self.fg_bg_sampler(labels)]
        positive, chosen = sampled[0], torch.cat(sampled)
        expected = self.samples * len(labels)
        wanted = torch.cat(regression_targets)[positive]
        box = F.smooth_l1_loss(pred_bbox_deltas[positive], wanted, beta=self.beta, reduction="sum")
        truth = torch.cat(labels)[chosen]
        logits = objectness.flatten()[chosen]
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / expected, box / expected


class RegionHeads(RoIHeads):
    """torchvision's box and mask heads, with losses that allow for no region, no object, and no gradient to lose."""

    def __init__(self, options: DetectorOptions, num_classes: int, strides: Sequence[int]) -> None:
        roi, norm, outputs = options.roi, norm_layer(options), num_classes + 1

        def pooler(bins: int) -> Pooler:
            return Pooler(strides, bins, roi.sampling, roi.aligned, roi.canonical_size, roi.canonical_level)

        super().__init__(
            pooler(roi.box_bins),
            FastRCNNConvFCHead((options.width, roi.box_bins, roi.box_bins), roi.box_convs, roi.fc, norm),
            FastRCNNPredictor(roi.fc[-1], outputs),
            fg_iou_thresh=roi.iou,
            bg_iou_thresh=roi.iou,
            batch_size_per_image=roi.samples,
            positive_fraction=roi.share,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=roi.score,
            nms_thresh=roi.nms,
            detections_per_img=roi.detections,
            mask_roi_pool=pooler(roi.mask_bins),
            mask_head=MaskRCNNHeads(options.width, roi.mask_convs, 1, norm),
            mask_predictor=MaskRCNNPredictor(roi.mask_convs[-1], roi.mask_hidden, outputs),
        )
        self.options = roi
        _initialise(self)

    def losses(self, features: dict[str, Tensor], proposals: list[Tensor], targets: TorchTargets) -> dict[str, Tensor]:
        """Losses of classes, boxes and masks on sampled proposals and the true boxes among them."""
        regions, matched, labels, wanted = self.select_training_samples(proposals, targets)
        logits, deltas = self._boxes(features, regions)
        losses = box_losses(logits, deltas, torch.cat(labels), torch.cat(wanted), self.options.beta)
        positive = [torch.where(label > 0)[0] for label in labels]
        chosen = [region[index] for region, index in zip(regions, positive, strict=True)]
        owners = [owner[index] for owner, index in zip(matched, positive, strict=True)]
        masks = self._masks(features, chosen)
        kinds = torch.cat([target["labels"][owner] for target, owner in zip(targets, owners, strict=True)])
        return losses | {"mask": mask_loss(masks, kinds, self._mask_targets(targets, chosen, owners))}

    def detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each image: boxes (n, 4), scores (n,), classes (n,) from 0, mask probabilities (n, M, M)."""
        logits, deltas = self._boxes(features, proposals)
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, shapes)
        kinds = torch.cat(labels)
        every = self._masks(features, boxes)
        masks = every[torch.arange(len(kinds), device=kinds.device), kinds].float().sigmoid()
        split = masks.split([len(found) for found in boxes])
        return [
            (box, score, label - 1, mask) for box, score, label, mask in zip(boxes, scores, labels, split, strict=True)
        ]

    def _boxes(self, features: dict[str, Tensor], regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, regions)))
        return logits.float(), deltas.float()

    def _masks(self, features: dict[str, Tensor], regions: list[Tensor]) -> Tensor:
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, regions)))
        return logits

    def _mask_targets(self, targets: TorchTargets, boxes: list[Tensor], owners: list[Tensor]) -> Tensor:
        side = 2 * self.options.mask_bins
        parts = [
            mask_targets(target["masks"], box, owner, side, self.options)
            for target, box, owner in zip(targets, boxes, owners, strict=True)
        ]
        return torch.cat(parts)


def box_losses(logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, beta: float) -> dict[str, Tensor]:
    """Cross-entropy of classes, and smooth L1 of the true class's box summed over objects; both a mean over regions.

    logits: (R, 1 + K); deltas: (R, 4 * (1 + K)); labels: (R,), 0 is background; wanted: (R, 4). Without a region: 0.
    """
    count = max(len(labels), 1)
    positive = torch.where(labels > 0)[0]
    own = deltas.view(len(labels), -1, 4)[positive, labels[positive]] if len(labels) else deltas.view(0, 4)
    return {
        "class": F.cross_entropy(logits, labels, reduction="sum") / count,
        "box": F.smooth_l1_loss(own, wanted[positive], beta=beta, reduction="sum") / count,
    }


def mask_targets(masks: Tensor, boxes: Tensor, owners: Tensor, side: int, options: RoiOptions) -> Tensor:
    """What masks (n, h, w) look like in boxes (p, 4) of the objects `owners` (p,): (p, side, side) float in 0..1."""
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    # only the objects that have a region: an image may have a hundred
    used, index = owners.unique(return_inverse=True)
    rois = torch.cat([index[:, None].to(boxes.dtype), boxes], 1)
    found = roi_align(masks[used, None].to(boxes.dtype), rois, (side, side), 1.0, 0, options.aligned)[:, 0]
    return found if options.soft_targets else (found >= 0.5).to(found.dtype)


def mask_loss(logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy of each region's mask of its true class, a mean over pixels. Without a region: 0."""
    if not len(labels):
        return logits.float().sum()  # of nothing; keeps the heads in the graph
    own = logits[torch.arange(len(labels), device=labels.device), labels].float()
    return F.binary_cross_entropy_with_logits(own, wanted)


def _initialise(heads: RegionHeads) -> None:
    """Initial weights of the recipe: fully connected layers, and predictors that start near 0."""
    for layer in heads.box_head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
    predictors = (
        (heads.box_predictor.cls_score, 0.01),
        (heads.box_predictor.bbox_pred, 0.001),
        (heads.mask_predictor.mask_fcn_logits, 0.001),
    )
    for layer, spread in predictors:
        nn.init.normal_(layer.weight, std=spread)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(heads.mask_predictor.conv5_mask.bias)
