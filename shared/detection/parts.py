"""Parts of Mask R-CNN in which torchvision and detectron2 differ: batch norm without input, anchors, RoIAlign."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import roi_align

from shared.detection.options import DetectorOptions, RpnOptions


class _EmptyBatchNorm(nn.BatchNorm2d):
    """Batch norm that lets an input without samples pass: its statistics would become NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.numel() else _affine(self, x)


class _EmptySyncBatchNorm(nn.SyncBatchNorm):
    """As above. With several processes, one without samples still takes part in the sum of the others."""

    def forward(self, x: Tensor) -> Tensor:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return super().forward(x) if x.numel() or (several and self.training) else _affine(self, x)


def _affine(norm: nn.BatchNorm2d | nn.SyncBatchNorm, x: Tensor) -> Tensor:
    # both parameters stay in the graph, or a distributed training would wait for their gradients
    return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def norm_layer(options: DetectorOptions) -> Callable[[int], nn.Module]:
    """Batch norm of the pyramid and the heads."""
    return _EmptySyncBatchNorm if options.norm == "sync" else _EmptyBatchNorm


class Anchors(AnchorGenerator):
    """Anchors around the points (column * stride, row * stride) of each level.

    torchvision divides the batch's sides by the map's for the stride, which is another number wherever a map's side
    was rounded: 61 instead of 64 for the coarsest map of 800 pixels. Here strides are those of the pyramid.
    """

    def __init__(self, options: RpnOptions, strides: Sequence[int]) -> None:
        self.round_anchors = options.round_anchors
        super().__init__(tuple((size,) for size in options.anchors), (tuple(options.ratios),) * len(options.anchors))
        self.strides = list(strides)
        self._grids: dict[tuple[object, ...], Tensor] = {}

    def generate_anchors(  # the package's signature
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Anchors (ratios, 4) of one level around the origin. Real ones even while a model is built without memory."""
        size = float(scales[0])
        sides = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in aspect_ratios]
        corners = [[-width / 2, -height / 2, width / 2, height / 2] for width, height in sides]
        anchors = torch.tensor(corners, dtype=dtype, device=device or torch.device("cpu"))
        return anchors.round() if self.round_anchors else anchors

    def forward(self, image_list: object, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors (A, 4) of all levels, once for each image of the batch."""
        grids = [tuple(feature.shape[-2:]) for feature in feature_maps]
        device = feature_maps[0].device
        key = (*grids, device)
        if key not in self._grids:
            self.set_cell_anchors(torch.float32, device)
            strides = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
            if len(self._grids) >= 16:  # multi-scale training sees hundreds of shapes
                self._grids.pop(next(iter(self._grids)))
            self._grids[key] = torch.cat(self.grid_anchors([list(grid) for grid in grids], strides))
        return [self._grids[key]] * len(feature_maps[0])


class Pooler(nn.Module):
    """RoIAlign on the level of the pyramid that fits a region's size.

    torchvision guesses a level's stride from the first batch it sees, and guesses wrong for an image much thinner than
    its padding; here strides are given. Otherwise this is its MultiScaleRoIAlign, with `aligned` as a choice.
    """

    def __init__(
        self,
        strides: Sequence[int],
        bins: int,
        sampling: int,
        aligned: bool,
        canonical_size: float,
        canonical_level: int,
    ) -> None:
        super().__init__()
        self.strides, self.output_size = list(strides), (bins, bins)
        self.sampling, self.aligned = sampling, aligned
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def levels(self, boxes: Tensor) -> Tensor:
        """Index of the level (n,) of boxes (n, 4): floor(level + log2(sqrt(area) / size)), within the pyramid.

        The 1e-8 is detectron2's; torchvision adds 1e-6 to the logarithm. They differ where sqrt(area) / size is a
        power of two but for rounding.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        ratio = sides.prod(1).clamp(min=0).sqrt() / self.canonical_size
        level = torch.floor(self.canonical_level + torch.log2(ratio + 1e-8))
        low, high = (int(math.log2(stride)) for stride in (self.strides[0], self.strides[-1]))
        return level.clamp(low, high).long() - low

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]] | None = None
    ) -> Tensor:
        """Regions (R, C, bins, bins) of all images' boxes. Levels beyond `strides` are not read."""
        maps = list(features.values())[: len(self.strides)]
        index = torch.cat([torch.full_like(b[:, :1], image) for image, b in enumerate(boxes)])
        flat = torch.cat(boxes)
        rois = torch.cat([index, flat], 1)
        levels = self.levels(flat)
        order, regions = [], []
        for level, (feature, stride) in enumerate(zip(maps, self.strides, strict=True)):
            # every level takes part even without regions, or a distributed training would wait for its gradients
            chosen = torch.where(levels == level)[0]
            order.append(chosen)
            regions.append(roi_align(feature, rois[chosen], self.output_size, 1 / stride, self.sampling, self.aligned))
        return torch.cat(regions)[torch.cat(order).argsort()]
