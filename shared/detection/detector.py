"""A detector: any backbone of feature maps, a pyramid, and the heads of Mask R-CNN."""

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from shared.detection.batches import Batch
from shared.detection.heads import ProposalNetwork, RegionHeads, TorchTargets, build_pyramid, pyramid_strides
from shared.detection.options import DetectorOptions
from shared.errors import ConfigError


class Backbone(Protocol):
    """channels, strides: of the maps, finest first; a map's stride is twice the one before, a power of two."""

    channels: list[int]
    strides: list[int]

    def __call__(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Maps of normalised images (B, 3, H, W) with sizes (B, 2) without padding."""
        ...


class Raw(NamedTuple):
    """What was found in one image, in its pixels as the network saw it. boxes: (n, 4); scores: (n,), falling; classes:
    (n,) from 0; masks: (n, M, M) probabilities within the box."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor


class Detector(nn.Module):
    """Mask R-CNN. In train mode a call returns losses by name, in evaluation mode what was found (`Raw`)."""

    def __init__(self, backbone: nn.Module, options: DetectorOptions, num_classes: int) -> None:
        super().__init__()
        form = cast(Backbone, backbone)
        strides = pyramid_strides(form.strides, options)
        if len(options.rpn.anchors) != len(strides):
            sizes = len(options.rpn.anchors)
            raise ConfigError(f"rpn.anchors has {sizes} sizes, the pyramid {len(strides)} levels (strides {strides})")
        self.backbone = backbone
        self.num_classes = num_classes
        self.fpn = build_pyramid(form.channels, options)
        self.rpn = ProposalNetwork(options.rpn, options.width, strides)
        self.roi_heads = RegionHeads(options, num_classes, form.strides)

    @property
    def bare_backbone(self) -> nn.Module:
        """The backbone, below the pyramid, whatever the engine."""
        return self.backbone

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Raw]:
        """batch: with targets in train mode."""
        features = self.fpn(self.backbone(batch.images, batch.sizes))
        images = ImageList(batch.images, batch.shapes)
        if self.training:
            targets = torch_targets(batch)
            proposals, losses = self.rpn(images, features, targets)
            found = self.roi_heads.losses(features, proposals, targets)
            return {"objectness": losses["loss_objectness"], "proposal": losses["loss_rpn_box_reg"], **found}
        proposals, _ = self.rpn(images, features)
        return [Raw(*found) for found in self.roi_heads.detections(features, proposals, batch.shapes)]


def build_detector(backbone: nn.Module, options: DetectorOptions, num_classes: int) -> nn.Module:
    """A detector of the engine that the options choose: called with a Batch like `Detector`."""
    if options.engine == "detectron2":
        from shared.detection.detectron2_engine import build

        return build(backbone, options, num_classes)
    return Detector(backbone, options, num_classes)


def torch_targets(batch: Batch) -> TorchTargets:
    """The batch's targets as torchvision's heads take them: 0 is background."""
    return [{"boxes": target.boxes, "labels": target.classes + 1, "masks": target.masks} for target in batch.targets]


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The sum of a detector's losses, for a training loop."""
    return torch.stack(list(model(batch).values())).sum()
