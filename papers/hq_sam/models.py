"""HQ-SAM (Ke et al., NeurIPS 2023, arXiv:2306.01567): SAM with an HQ-Output token and fused features.

Names of the new modules are those of the released checkpoints.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from papers.hq_sam.options import HqOptions
from shared.segmentation.sam.decoder import BatchedDecoder, Decoded, Embeddings, Masks, read_masks
from shared.segmentation.sam.model import SamModel, seeded
from shared.segmentation.sam.norm import ChannelNorm
from shared.segmentation.sam.options import SamSize
from shared.segmentation.sam.prompts import EncodedPrompts

NEW_MODULES = (
    "hf_token",
    "hf_mlp",
    "compress_vit_feat",
    "embedding_encoder",
    "embedding_maskfeature",
    "fpn",
    "context_tokens",
)


@dataclass(frozen=True)
class HqMasks(Masks):
    """Final logits (N, 1, L, L) and iou (N, 1), with the two masks they are made of: SAM's of the same pass, and the
    HQ token's (None without one).
    """

    sam: Tensor
    hq: Tensor | None


class HqDecoder(BatchedDecoder):
    """SAM's decoder with the new modules of section 3.2; parts that the options leave out do not exist.

    The HQ token takes part in every attention of the decoder, so SAM's masks of this pass differ from plain SAM's.
    """

    def __init__(self, size: SamSize, options: HqOptions) -> None:
        super().__init__(size)
        self.options = options
        C = size.width
        if options.features:
            self.hf_token = nn.Embedding(1, C)
            self.hf_mlp = MLP(C, C, C // 8, 3)
        if options.fusion == "fpn":
            self.fpn = FeaturePyramid(size)
        else:
            self._add_terms(size)
        if options.context_tokens:
            self.context_tokens = nn.Embedding(options.context_tokens, C)

    def _add_terms(self, size: SamSize) -> None:
        C, features = size.width, self.options.features
        if "early" in features:
            self.compress_vit_feat = _upscale(size.encoder.dim, C, C // 8)
        if "final" in features:
            self.embedding_encoder = _upscale(C, C // 4, C // 8)
        if "decoder" in features:
            self.embedding_maskfeature = nn.Sequential(
                nn.Conv2d(C // 8, C // 4, 3, padding=1),
                ChannelNorm(C // 4),
                nn.GELU(),
                nn.Conv2d(C // 4, C // 8, 3, padding=1),
            )

    def output_tokens(self) -> Tensor:
        """IoU, four masks, HQ, context: the HQ token is the sixth, as in the released code."""
        more = [getattr(self, name).weight for name in ("hf_token", "context_tokens") if hasattr(self, name)]
        return torch.cat([super().output_tokens(), *more])

    def decode(
        self,
        embeddings: Embeddings,
        image_pe: Tensor,
        prompts: EncodedPrompts,
        multimask: bool = False,
        hq_token_only: bool = False,
    ) -> HqMasks:
        """One mask a prompt. SAM's share is mask 0, or with `multimask` the one of masks 1 to 3 of highest IoU.

        hq_token_only: the HQ token's mask alone, instead of the sum of both. The score is that of SAM's mask.
        """
        decoded = self.run(embeddings, image_pe, prompts)
        sam = self._best(decoded) if multimask else self.sam_masks(decoded, range(1))
        if not self.options.features:
            return HqMasks(sam.logits, sam.iou, sam.logits, None)
        hq = self._hq_mask(decoded, self.prepare(embeddings).feature, prompts.image)
        return HqMasks(hq if hq_token_only else sam.logits + hq, sam.iou, sam.logits, hq)

    def prepare(self, embeddings: Embeddings) -> Embeddings:
        """Embeddings with what the HQ feature takes from the image alone: feature (I, C / 8, L, L), the sum of its
        terms, or the upper levels (I, C / 8, h, w) of a pyramid; None if there are none.
        """
        if embeddings.feature is not None:
            return embeddings
        features = self.options.features
        if "early" in features and embeddings.early is None:
            raise ValueError("these embeddings have no early feature; embed with needs_early")
        early = None if embeddings.early is None else embeddings.early.permute(0, 3, 1, 2)
        if self.options.fusion == "fpn":
            return Embeddings(embeddings.image, embeddings.early, self.fpn.upper(embeddings.image, early))
        terms = []
        if "final" in features:
            terms.append(self.embedding_encoder(embeddings.image))
        if "early" in features:
            terms.append(self.compress_vit_feat(early))
        feature = sum(terms[1:], terms[0]) if terms else None
        return Embeddings(embeddings.image, embeddings.early, feature)

    def _best(self, decoded: Decoded) -> Masks:
        masks = self.sam_masks(decoded, range(1, self.num_mask_tokens))
        best = masks.iou.argmax(dim=1, keepdim=True)
        shape = (-1, 1, *masks.logits.shape[2:])
        logits = masks.logits.gather(1, best[:, :, None, None].expand(*shape))
        return Masks(logits, masks.iou.gather(1, best))

    def _hq_token(self, tokens: Tensor) -> Tensor:
        """The HQ token (N, C) among the output tokens (N, number, C), with its share of SAM's if the options say so."""
        hq = tokens[:, 1 + self.num_mask_tokens]
        if not self.options.times_output:
            return hq
        sam = tokens[:, 1 : 1 + self.num_mask_tokens]
        return hq + F.scaled_dot_product_attention(hq[:, None], sam, sam)[:, 0]

    def _hq_mask(self, decoded: Decoded, feature: Tensor | None, index: Tensor) -> Tensor:
        """<hf_mlp(token), F> without making F, the sum of the terms, for each prompt: (N, 1, L, L)."""
        hyper = self.hf_mlp(self._hq_token(decoded.tokens))[:, None]
        if self.options.fusion == "fpn":
            assert feature is not None
            return _read_convolved(hyper, self.fpn.smooth, self.fpn.merged(decoded.upscaled, feature[index]))
        shares = []
        if "decoder" in self.options.features:
            shares.append(_read_convolved(hyper, self.embedding_maskfeature, decoded.upscaled))
        if "decoder_plain" in self.options.features:
            shares.append(read_masks(hyper, decoded.upscaled))
        if feature is not None:  # of a single image: one matrix product, and no copy of the feature for each prompt
            shares.append(read_masks(hyper, feature if len(feature) == 1 else feature[index]))
        return sum(shares[1:], shares[0])


class FeaturePyramid(nn.Module):
    """A feature pyramid in place of the sum (table 3 compares them): a 1x1 convolution brings each level to C / 8
    channels, from the top each is added to the next, and a 3x3 convolution smooths the finest.

    The encoder's final feature is the top; its early feature has the same resolution, SAM's mask feature four times it.
    """

    def __init__(self, size: SamSize) -> None:
        super().__init__()
        channels = size.width // 8
        self.final = nn.Conv2d(size.width, channels, 1)
        self.early = nn.Conv2d(size.encoder.dim, channels, 1)
        self.decoder = nn.Conv2d(channels, channels, 1)
        self.smooth = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))

    def upper(self, final: Tensor, early: Tensor | None) -> Tensor:
        """The two levels of the image: final (I, C, h, w) and early (I, D, h, w) to (I, C / 8, h, w)."""
        level: Tensor = self.final(final) + self.early(early)
        return level

    def merged(self, mask_feature: Tensor, upper: Tensor) -> Tensor:
        """Mask feature and upper level of each prompt, (N, C / 8, L, L) and (N, C / 8, h, w), before `smooth`."""
        level: Tensor = self.decoder(mask_feature)
        return level + F.interpolate(upper, level.shape[2:], mode="nearest")


def _upscale(channels: int, middle: int, out: int) -> nn.Sequential:
    """Four times the resolution, in two steps."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, middle, kernel_size=2, stride=2),
        ChannelNorm(middle),
        nn.GELU(),
        nn.ConvTranspose2d(middle, out, kernel_size=2, stride=2),
    )


def _read_convolved(hyper: Tensor, layers: nn.Sequential, x: Tensor) -> Tensor:
    """`read_masks(hyper, layers(x))` where the last layer is a 3x3 convolution: hyper (N, 1, c) goes into its kernel.

    Both are linear, so one output channel a prompt is convolved instead of c of them: nine inner products a pixel,
    shifted and summed.
    """
    conv = layers[-1]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    hidden = layers[:-1](x)
    # `fold` adds the value of tap (i, j) at the pixel it is moved to: a correlation with the mirrored kernel
    kernel = torch.einsum("nkc,cdij->nijd", hyper, conv.weight.flip(2, 3)).flatten(1, 2)
    taps = kernel @ hidden.flatten(2)
    return F.fold(taps, x.shape[2:], kernel_size=3, padding=1) + (hyper @ conv.bias)[:, :, None, None]


def build_hq(size: SamSize, options: HqOptions | None = None, seed: int | None = None) -> SamModel:
    """A freshly initialised HQ-SAM (torch's default initialisation, as in the paper's code)."""
    chosen = options or HqOptions()
    return seeded(lambda: SamModel(size, HqDecoder(size, chosen), needs_early="early" in chosen.features), seed)


def new_names(model: SamModel) -> list[str]:
    """Tensors that SAM does not have; 25 of them in HQ-SAM."""
    tops = tuple(f"mask_decoder.{name}." for name in NEW_MODULES)
    return [name for name in model.state_dict() if name.startswith(tops)]
