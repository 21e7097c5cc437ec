"""What turns pixels into tokens: four convolutions (ConvStem), or one (the patches of MAE)."""

from itertools import pairwise

from torch import Tensor, nn

from papers.mimdet.options import MimDetOptions


class ConvStem(nn.Module):
    """Convolutions of stride 2, each with a normalisation over channels and places, and GELU; section 3.2 of the paper.

    The normalisation (GroupNorm of one group) sees an image's padding, too.
    """

    def __init__(self, options: MimDetOptions) -> None:
        super().__init__()
        widths = [3, *(options.dim >> (options.stages - 1 - stage) for stage in range(options.stages))]
        stages = [
            [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, after, eps=1e-6), nn.GELU()]
            for before, after in pairwise(widths)
        ]
        stages[-1].append(nn.Conv2d(options.dim, options.dim, 1))
        self.proj = nn.ModuleList(nn.Sequential(*stage) for stage in stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) to the maps of all stages: channels D/8, D/4, D/2, D and strides 2, 4, 8, 16."""
        maps = []
        x = images
        for stage in self.proj:
            x = stage(x)
            maps.append(x)
        return maps


class PatchStem(nn.Module):
    """One convolution from patches to tokens, as in MAE."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) to a single map (N, D, h, w)."""
        return [self.proj(images)]


def build_stem(options: MimDetOptions) -> ConvStem | PatchStem:
    """The stem that the options choose."""
    return ConvStem(options) if options.stem == "conv" else PatchStem(options.dim, options.patch)
