"""The point prompter (DPA-P2PNet, AAAI 2024, as PromptNucSeg uses it, arXiv:2311.15939, section 3.1).

Anchors on a grid are moved twice, to a proposal and then to a nucleus, and classified; a second branch says which
pixels are foreground. Points are (x, y) in pixels of the image.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.promptnucseg.prompter.options import PrompterTraining
from papers.promptnucseg.prompter.pyramid import Pyramid, make_backbone
from shared.segmentation.sam.model import seeded


class Predicted(NamedTuple):
    """points: (B, M, 2); logits: (B, M, C + 1), the last one is background; mask: logits (B, 1, H, W) or None."""

    points: Tensor
    logits: Tensor
    mask: Tensor | None


class Prompter(nn.Module):
    """forward: images (B, 3, H, W) in 0..255, sides of any size; one prediction for each of the M anchors."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, options: PrompterTraining) -> None:
        super().__init__()
        C, L = options.width, options.levels
        self.options = options
        self.backbone = make_backbone(options.backbone)
        self.pyramid = Pyramid(self.backbone.widths, C, L)
        self.deform = head(C, 2, options.dropout)
        self.merge = nn.Conv2d(L * C, C, 3, padding=1)
        self.regress = head(C, 2, options.dropout)
        self.classify = head(C, options.num_classes + 1, options.dropout)
        if options.aux_weight:
            self.mask_pyramid = Pyramid(self.backbone.widths, C, 1)
            self.mask_head = mask_head(C, released=options.mask_head == "released")
        for name, values in (("pixel_mean", options.pixel_mean), ("pixel_std", options.pixel_std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Predicted:
        maps = self.backbone((images.float() - self.pixel_mean) / self.pixel_std)
        size = (images.shape[2], images.shape[3])
        levels = self.pyramid(maps)
        grid = anchors(size, self.options.spacing, images.device).expand(len(images), -1, -1, -1)
        first = self._sample(levels[0], grid, 0, size).permute(0, 2, 3, 1)
        proposals = grid + self.deform(first)
        sampled = [self._sample(level, proposals, index, size) for index, level in enumerate(levels)]
        merged = self.merge(torch.cat(sampled, 1)).permute(0, 2, 3, 1)
        points = proposals + self.regress(merged)
        logits = self.classify(merged)
        return Predicted(points.flatten(1, 2).float(), logits.flatten(1, 2).float(), self._mask(maps, size))

    def _mask(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor | None:
        if not self.options.aux_weight:
            return None
        coarse = self.mask_head(self.mask_pyramid(maps)[0]).float()
        return F.interpolate(coarse, size, mode="bilinear", align_corners=self.options.mask_head == "released")

    def _sample(self, level: Tensor, points: Tensor, index: int, size: tuple[int, int]) -> Tensor:
        """(B, C, gh, gw): a pyramid level at points (B, gh, gw, 2), zero beyond its border."""
        stride = self.backbone.strides[index]
        extent = stride * torch.tensor([level.shape[3], level.shape[2]], device=level.device)
        if self.options.sampling == "released":  # pixel x becomes x / stride of a map that ends at 2 / 2 = size
            grid, corners = 2 * points / extent - 1, True
        else:  # the pixel's centre x + 0.5
            grid, corners = (2 * points + 1) / extent - 1, False
        # half precision would round places by up to a pixel
        return F.grid_sample(level.float(), grid.float(), align_corners=corners)


def anchors(size: tuple[int, int], spacing: int, device: torch.device | str = "cpu") -> Tensor:
    """(gh, gw, 2): points (x, y) every `spacing` pixels of an image of (height, width), ceil(side / spacing) a side.

    The first lies at half the spacing, or at half of what is left over.
    """
    rows, columns = (
        torch.arange(-(-side // spacing), device=device) * spacing + (side % spacing or spacing) / 2 for side in size
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1)


def head(width: int, out: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(width, out))


def mask_head(width: int, released: bool) -> nn.Sequential:
    """Foreground logits. released: the 1x1 convolution pads by one, so that its map is two cells too large.

    Batch norm is the authors' synchronised one where training runs in one process, as their command does.
    """
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 1, 1, padding=int(released)),
    )


def build_prompter(options: PrompterTraining, seed: int | None = None) -> Prompter:
    """A freshly initialised prompter. seed: leaves the global random state alone."""
    prompter: Prompter = seeded(lambda: Prompter(options), seed)
    return prompter
