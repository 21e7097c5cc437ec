"""SAM's mask decoder for prompts of several images at once, open to further tokens."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor

from shared.segmentation.sam.norm import ChannelNorm
from shared.segmentation.sam.options import SamSize
from shared.segmentation.sam.prompts import EncodedPrompts
from shared.segmentation.sam.two_way import BatchedTwoWayTransformer


@dataclass(frozen=True)
class Embeddings:
    """What a model makes of I images before it sees a prompt.

    image: (I, C, h, w). early: (I, h, w, D) or None, the output of the first block with global attention, channels
    last, before the neck. feature: what a decoder computes from these alone (`BatchedDecoder.prepare`), or None.
    """

    image: Tensor
    early: Tensor | None = None
    feature: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, chosen: slice | Tensor) -> "Embeddings":
        """The embeddings of some of the images."""
        return self._each(lambda value: value[chosen])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Embeddings":
        """The same elsewhere or in another precision."""
        return self._each(lambda value: value.to(device=device, dtype=dtype))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Embeddings":
        others = (self.early, self.feature)
        return Embeddings(change(self.image), *(None if value is None else change(value) for value in others))


@dataclass(frozen=True)
class Masks:
    """logits: (N, K, L, L), above 0 inside. iou: (N, K), predicted IoU of each."""

    logits: Tensor
    iou: Tensor


@dataclass(frozen=True)
class Decoded:
    """Output tokens (N, number, C) in the order of `BatchedDecoder.output_tokens`, and the upscaled image embedding
    that masks are read from, (N, C / 8, L, L).
    """

    tokens: Tensor
    upscaled: Tensor


class BatchedDecoder(MaskDecoder):
    """The package's decoder (same weights, same outputs) for N prompts of I images in one call.

    The package repeats the embedding of one image for its prompts; here each prompt names its image. Subclasses add
    tokens by overriding `output_tokens`, and masks by overriding `decode`. Called as the package calls its decoder, it
    still is the package's decoder, and knows of no further tokens.
    """

    def __init__(self, size: SamSize) -> None:
        transformer = BatchedTwoWayTransformer(size.depth, size.width, size.heads, size.mlp)
        super().__init__(transformer_dim=size.width, transformer=transformer, iou_head_hidden_dim=size.iou_hidden)
        self.output_upscaling[1] = ChannelNorm(size.width // 4)

    def output_tokens(self) -> Tensor:
        """All tokens that every prompt gets, (number, C): IoU, single mask, three masks, then those of subclasses."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def prepare(self, embeddings: Embeddings) -> Embeddings:
        """Embeddings with what this decoder computes from images alone, for repeated calls on them. Here nothing."""
        return embeddings

    def decode(
        self, embeddings: Embeddings, image_pe: Tensor, prompts: EncodedPrompts, multimask: bool = False
    ) -> Masks:
        """Masks of N prompts: one (token 0), or with `multimask` three (tokens 1 to 3)."""
        decoded = self.run(embeddings, image_pe, prompts)
        return self.sam_masks(decoded, range(1, self.num_mask_tokens) if multimask else range(1))

    def run(self, embeddings: Embeddings, image_pe: Tensor, prompts: EncodedPrompts) -> Decoded:
        """The transformer and the upscaling, for all prompts in one batch."""
        own = self.output_tokens()
        tokens = torch.cat([own.expand(len(prompts.image), -1, -1), prompts.sparse], dim=1)
        valid = prompts.valid
        if valid is not None:
            valid = torch.cat([valid.new_ones(len(valid), len(own)), valid], dim=1)
        if len(prompts.dense) == 1 and prompts.dense.shape[-1] == 1:
            source, index = embeddings.image + prompts.dense, prompts.image
        else:
            source, index = embeddings.image[prompts.image] + prompts.dense, None
        hidden, image_tokens = self.transformer(source, image_pe, tokens, index, valid)
        upscaled = self.output_upscaling(image_tokens.transpose(1, 2).unflatten(2, source.shape[2:]))
        return Decoded(hidden[:, : len(own)], upscaled)

    def sam_masks(self, decoded: Decoded, masks: range) -> Masks:
        """SAM's own masks of the given indices, 0..3."""
        hyper = [self.output_hypernetworks_mlps[i](decoded.tokens[:, 1 + i]) for i in masks]
        iou = self.iou_prediction_head(decoded.tokens[:, 0])[:, masks.start : masks.stop]
        return Masks(read_masks(torch.stack(hyper, dim=1), decoded.upscaled), iou)


def read_masks(hyper: Tensor, features: Tensor) -> Tensor:
    """Inner products of K vectors a prompt, (N, K, c), with its features (N, c, L, L): logits (N, K, L, L)."""
    return (hyper @ features.flatten(2)).unflatten(2, features.shape[2:])
