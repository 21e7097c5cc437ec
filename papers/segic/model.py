"""SegIC's trainable part (Meng et al., ECCV 2024, arXiv:2311.14671): a neck, a prompt encoder and a mask decoder of
SAM's form, and the projections of instructions to tokens. Names of modules are those of the released files.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn

from papers.segic.correspondence import EPS, highest_points, similarity
from papers.segic.options import Assembly
from shared.segmentation.sam.decoder import BatchedDecoder, Embeddings, Masks
from shared.segmentation.sam.model import seeded
from shared.segmentation.sam.norm import ChannelNorm
from shared.segmentation.sam.options import SamSize, VitSize
from shared.segmentation.sam.prompts import EncodedPrompts

_MASK_CHANNELS = 16


@dataclass(frozen=True)
class Cues:
    """What is known of N prompts on I images.

    image: (N,) int64, the image each is about. prototype: (N, D), what the similarity map is computed with. visual:
    (N, E, D), pooled features of E examples each. text: (N, T). boxes: (N, 4) as x0, y0, x1, y1 in pixels of the input,
    with has_box (N,) bool; None: no prompt has one. crossed: (N,) bool, whether a prompt gets the visual tokens of all
    prompts of its image. crossed_points: whether it gets their highest points as well, as points outside of it. eps:
    least norm in the cosine.
    """

    image: Tensor
    prototype: Tensor
    visual: Tensor
    text: Tensor
    crossed: Tensor
    boxes: Tensor | None = None
    has_box: Tensor | None = None
    crossed_points: bool = False
    eps: float = EPS

    def __len__(self) -> int:
        return len(self.image)

    def joined(self, more: "Cues") -> "Cues":
        """These and further prompts, all without boxes."""
        return Cues(
            torch.cat([self.image, more.image]),
            torch.cat([self.prototype, more.prototype]),
            torch.cat([self.visual, more.visual]),
            torch.cat([self.text, more.text]),
            torch.cat([self.crossed, more.crossed]),
            crossed_points=self.crossed_points,
            eps=self.eps,
        )


class Tokens(NamedTuple):
    """values: (N, T, C); valid: (N, T) bool."""

    values: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Siblings:
    """Prompts of the same image. index: (N, M) int64, M being the most of any image; valid: (N, M) bool; own: (N, M)
    bool, where a prompt stands itself."""

    index: Tensor
    valid: Tensor
    own: Tensor


class SegicModel(nn.Module):
    """Everything that learns. digest: (2, 32) uint8, of the backbone and of the text encoder after the training, by
    which it is shown that neither has changed; zeros before."""

    digest: Tensor

    def __init__(self, options: Assembly) -> None:
        super().__init__()
        self.options = options
        side, tokens, width = options.backbone.image, options.backbone.tokens, options.size.width
        dim = options.backbone.kind.dim
        self.neck = nn.Sequential(
            nn.Conv2d(dim, width, 1, bias=False),
            ChannelNorm(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            ChannelNorm(width),
        )
        self.prompt_encoder = PromptEncoder(width, (tokens, tokens), (side, side), _MASK_CHANNELS)
        self.prompt_encoder.mask_downscaling = _mask_downscaling(width, options.size.strides)
        self.mask_decoder = BatchedDecoder(_sam_size(options))
        self.prompt_proj = nn.Linear(options.text.dim, width)
        self.inst_proj = nn.Linear(dim, width)
        self.inst_type_embed = nn.Embedding(2, width)
        self.register_buffer("digest", torch.zeros(2, 32, dtype=torch.uint8))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.digest.device

    @property
    def image_side(self) -> int:
        """Pixels a side of the input."""
        return self.options.backbone.image

    @property
    def is_dense(self) -> bool:
        """Whether the map is the mean of cosines."""
        return self.options.use.correspondence == "dense"

    def forward(self, features: Tensor, cues: Cues) -> Masks:
        """Masks of N prompts on images with features (I, D, h, w): logits (N, 1, 4h, 4w) and predicted IoU (N, 1)."""
        embeddings = Embeddings(self.neck(features))
        with torch.autocast(features.device.type, enabled=False):  # half precision moves points
            prompts = self.prompts(features, cues)
            positions = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder.decode(embeddings, positions, prompts)

    def maps(self, features: Tensor, cues: Cues) -> Tensor:
        """Similarity maps (N, S, S) at the input's size."""
        side = self.image_side
        quarter = similarity(features, cues.prototype, cues.image, side // 4, self.is_dense, cues.eps)
        large = F.interpolate(quarter[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
        return large / self.options.use.temperature

    def prompts(self, features: Tensor, cues: Cues) -> EncodedPrompts:
        """All instructions as SAM's prompts."""
        use, siblings = self.options.use, siblings_of(cues.image)
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        groups: list[Tokens] = []
        if use.geometric:
            maps = self.maps(features, cues)
            dense = self.prompt_encoder.mask_downscaling(maps[:, None])
            groups.append(self._points(highest_points(maps), cues, siblings))
        if cues.boxes is not None and cues.has_box is not None:
            corners = self.prompt_encoder._embed_boxes(cues.boxes)
            groups.append(Tokens(corners, cues.has_box[:, None].expand(-1, 2)))
        if use.meta:
            groups.append(_all_valid(self.prompt_proj(cues.text)[:, None]))
        if use.visual:
            groups.append(self._visual(cues, siblings))
        if not groups:
            empty = features.new_zeros(len(cues), 0, self.options.size.width)
            return EncodedPrompts(cues.image, empty, None, dense)
        values, valid = (torch.cat(parts, 1) for parts in zip(*groups, strict=True))
        return EncodedPrompts(cues.image, values, None if valid.all() else valid, dense)

    def _points(self, highest: Tensor, cues: Cues, siblings: Siblings) -> Tokens:
        """The highest point, or those of all siblings, and SAM's padding point where there is no box."""
        points, labels, valid = highest[:, None], highest.new_ones(len(highest), 1), None
        if cues.crossed_points:
            points, labels, valid = highest[siblings.index], siblings.own.float(), siblings.valid
        values = self.prompt_encoder._embed_points(points, labels, pad=True)
        padding = torch.ones_like(cues.image, dtype=torch.bool) if cues.has_box is None else ~cues.has_box
        known = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        return Tokens(values, torch.cat([known, padding[:, None]], 1))

    def _visual(self, cues: Cues, siblings: Siblings) -> Tokens:
        """A token for each example; crossed prompts get those of their siblings, marked by whose they are."""
        own = self.inst_proj(cues.visual)
        values = own[siblings.index] + torch.where(
            cues.crossed[:, None, None, None],
            self.inst_type_embed(siblings.own.long())[:, :, None],
            own.new_zeros(()),
        )
        valid = siblings.valid & (siblings.own | cues.crossed[:, None])
        valid = valid[:, :, None].expand(values.shape[:3])
        return Tokens(values.flatten(1, 2), valid.flatten(1, 2))


def siblings_of(image: Tensor) -> Siblings:
    """Prompts that share the image of each prompt, in their order."""
    same = image[:, None] == image[None]
    most = int(same.sum(1).max()) if len(image) else 0
    index = same.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    own = index == torch.arange(len(image), device=image.device)[:, None]
    return Siblings(index, same.gather(1, index), own)


def _all_valid(values: Tensor) -> Tokens:
    return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))


def _mask_downscaling(width: int, strides: tuple[int, int]) -> nn.Sequential:
    """The similarity map (N, 1, S, S) to a dense prompt (N, width, h, w); kernels do not overlap."""
    first, second = strides
    return nn.Sequential(
        nn.Conv2d(1, _MASK_CHANNELS // 4, first, stride=first),
        ChannelNorm(_MASK_CHANNELS // 4),
        nn.GELU(),
        nn.Conv2d(_MASK_CHANNELS // 4, _MASK_CHANNELS, second, stride=second),
        ChannelNorm(_MASK_CHANNELS),
        nn.GELU(),
        nn.Conv2d(_MASK_CHANNELS, width, 1),
    )


def _sam_size(options: Assembly) -> SamSize:
    """The decoder reads its own numbers from it; the encoder in it does not exist."""
    kind, size = options.backbone.kind, options.size
    encoder = VitSize(patch=kind.patch, dim=kind.dim, depth=1, heads=1, window=0)
    return SamSize(
        image=options.backbone.image,
        encoder=encoder,
        width=size.width,
        heads=size.heads,
        mlp=size.mlp,
        iou_hidden=size.iou_hidden,
    )


def build_segic(options: Assembly, seed: int | None = None) -> SegicModel:
    """A freshly initialised model (torch's default initialisation)."""
    model: SegicModel = seeded(lambda: SegicModel(options), seed)
    return model
