"""Sizes of the Segment Anything models (Kirillov et al., arXiv:2304.02643); torch-free, so that planning reads them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.errors import ConfigError, nearest
from shared.options import Count, Options

Rgb = Annotated[tuple[float, float, float], Field(strict=False)]


class VitSize(Options):
    """A plain vision transformer with window attention and relative positions.

    patch: pixels a side of one token. window: tokens a side of an attention window; 0: every block is global.
    global_blocks: indices of the blocks that attend globally. grid: tokens a side of the position tables, if the
    weights were made for another image size than the model's own; the tables are then resized in the forward pass.
    """

    kind: Literal["vit"] = "vit"
    patch: Count
    dim: Count
    depth: Count
    heads: Count
    window: Annotated[int, Field(ge=0)] = 14
    global_blocks: list[Annotated[int, Field(ge=0)]] = []
    grid: Count | None = None

    @model_validator(mode="after")
    def _blocks_exist(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of heads {self.heads}")
        if any(index >= self.depth for index in self.global_blocks):
            raise ValueError(f"global_blocks names a block beyond depth {self.depth}")
        if self.window and not self.global_blocks:
            raise ValueError("windows without a global block never see the whole image")
        return self


class TinyVitSize(Options):
    """TinyViT-5M (Wu et al., arXiv:2207.10666) as MobileSAM uses it: the last stage keeps the stride of 16 pixels."""

    kind: Literal["tiny_vit"] = "tiny_vit"
    dims: Annotated[list[Count], Field(min_length=4, max_length=4)] = [64, 128, 160, 320]
    depths: Annotated[list[Count], Field(min_length=4, max_length=4)] = [2, 2, 6, 2]
    heads: Annotated[list[Count], Field(min_length=4, max_length=4)] = [2, 4, 5, 10]
    windows: Annotated[list[Count], Field(min_length=4, max_length=4)] = [7, 7, 14, 7]

    @property
    def patch(self) -> int:
        """Pixels a side of one token of the embedding."""
        return 16

    @property
    def dim(self) -> int:
        """Channels of the early feature: the input of the third stage."""
        return self.dims[2]


class SamSize(Options):
    """One Segment Anything model.

    image: pixels a side of the square input. width: channels of the image embedding, the prompts and the decoder.
    heads, mlp, depth: the decoder's two-way transformer. iou_hidden: width of the head that predicts the IoU.
    pixel_mean, pixel_std: normalisation on the scale 0..255.
    """

    image: Count = 1024
    encoder: Annotated[VitSize | TinyVitSize, Field(discriminator="kind")]
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    depth: Count = 2
    heads: Count = 8
    mlp: Count = 2048
    iou_hidden: Count = 256
    pixel_mean: Rgb = (123.675, 116.28, 103.53)
    pixel_std: Rgb = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.image % self.encoder.patch:
            raise ValueError(f"image {self.image} is no multiple of the patch of {self.encoder.patch} pixels")
        if self.width // 2 % self.heads:
            raise ValueError(f"half of width {self.width} is no multiple of heads {self.heads}")
        return self

    @property
    def tokens(self) -> int:
        """Tokens a side of the image embedding."""
        return self.image // self.encoder.patch

    @property
    def low_res(self) -> int:
        """Pixels a side of mask logits and of mask prompts: four a token."""
        return 4 * self.tokens


VIT_B = VitSize(patch=16, dim=768, depth=12, heads=12, global_blocks=[2, 5, 8, 11])
VIT_L = VitSize(patch=16, dim=1024, depth=24, heads=16, global_blocks=[5, 11, 17, 23])
VIT_H = VitSize(patch=16, dim=1280, depth=32, heads=16, global_blocks=[7, 15, 23, 31])


def _at_256(encoder: VitSize) -> SamSize:
    """256-pixel images with the weights of the 1024-pixel model."""
    return SamSize(image=256, encoder=encoder.model_copy(update={"grid": 64}))


def _small(encoder: VitSize) -> SamSize:
    """64-pixel images, normalised as (x - 0.5) / 0.25 of pixels x in [0, 1]."""
    centre, spread = (127.5, 127.5, 127.5), (63.75, 63.75, 63.75)
    decoder = {"width": 64, "heads": 4, "mlp": 128, "iou_hidden": 64}
    return SamSize(image=64, encoder=encoder, pixel_mean=centre, pixel_std=spread, **decoder)


SIZES: dict[str, SamSize] = {
    "vit_b": SamSize(encoder=VIT_B),
    "vit_l": SamSize(encoder=VIT_L),
    "vit_h": SamSize(encoder=VIT_H),
    "tiny_vit": SamSize(encoder=TinyVitSize()),
    "vit_b_256": _at_256(VIT_B),
    "vit_l_256": _at_256(VIT_L),
    "vit_h_256": _at_256(VIT_H),
    # 8x8 tokens with windows and two global blocks, and 16x16 tokens without windows
    "small_patch8": _small(VitSize(patch=8, dim=64, depth=4, heads=2, window=4, global_blocks=[1, 3])),
    "small_patch4": _small(VitSize(patch=4, dim=48, depth=3, heads=3, window=0)),
}


def sam_size(name: str) -> SamSize:
    """The size called `name`. Raises ConfigError with the nearest known name."""
    if name not in SIZES:
        raise ConfigError(f"SAM size '{name}' is unknown{nearest(name, list(SIZES))}; known: {', '.join(SIZES)}")
    return SIZES[name]
