"""A Segment Anything model: embed images once, decode any number of prompts on them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from segment_anything.modeling import PromptEncoder, Sam
from torch import Tensor, nn

from shared.segmentation.sam.decoder import BatchedDecoder, Embeddings, Masks
from shared.segmentation.sam.encoder import VitEncoder
from shared.segmentation.sam.features import encode
from shared.segmentation.sam.options import SamSize, VitSize
from shared.segmentation.sam.prompts import Prompts, encode_prompts
from shared.segmentation.sam.tiny_vit import TinyVitEncoder


class SamModel(Sam):
    """SAM of a given size; its state dict is that of the released files.

    needs_early: whether `embed` keeps the early feature. Frozen parts (`freeze`) stay in evaluation mode when the
    model is put into training mode: batch statistics of a frozen encoder must not move.
    """

    def __init__(self, size: SamSize, decoder: BatchedDecoder | None = None, needs_early: bool = False) -> None:
        encoder = VitEncoder(size) if isinstance(size.encoder, VitSize) else TinyVitEncoder(size)
        prompt_encoder = PromptEncoder(
            embed_dim=size.width,
            image_embedding_size=(size.tokens, size.tokens),
            input_image_size=(size.image, size.image),
            mask_in_chans=16,
        )
        super().__init__(
            encoder, prompt_encoder, decoder or BatchedDecoder(size), list(size.pixel_mean), list(size.pixel_std)
        )
        self.size = size
        self.needs_early = needs_early

    def embed(self, images: Tensor) -> Embeddings:
        """Images (I, 3, H, W) in 0..255, H and W at most `size.image`; smaller ones are padded with the mean colour."""
        return encode(self.image_encoder, self.preprocess(images.float()), self.needs_early)

    def forward(
        self, source: Tensor | Embeddings, prompts: Prompts | Sequence[Prompts], multimask: bool = False, **options: Any
    ) -> Masks:
        """Masks of all prompts on images (I, 3, H, W) in 0..255, or on their embeddings, in one decoder call.

        multimask: three masks a prompt instead of one. options: those of the decoder's `decode`. Without any prompt
        the result is empty. The package's own dictionaries are not taken.
        """
        embeddings = self.embed(source) if isinstance(source, Tensor) else source
        # Half precision would move a position among 1024 pixels by some two of them.
        with torch.autocast(self.device.type, enabled=False):
            encoded = encode_prompts(self.prompt_encoder, prompts)
            positions = self.prompt_encoder.get_dense_pe()
        masks: Masks = self.mask_decoder.decode(embeddings, positions, encoded, multimask=multimask, **options)
        return masks

    def freeze(self, names: Iterable[str]) -> list[str]:
        """Train no parameter but those named, or below a name ("mask_decoder"); returns the full names of these.

        Raises ValueError for a name that nothing has.
        """
        wanted = list(names)
        own = dict(self.named_parameters())
        chosen = [name for name in own if any(_is_below(name, top) for top in wanted)]
        for top in wanted:
            if not any(_is_below(name, top) for name in own):
                raise ValueError(f"'{top}' names no parameter of this model")
        for name, parameter in own.items():
            parameter.requires_grad_(name in set(chosen))
        self.train(self.training)
        return chosen

    def train(self, mode: bool = True) -> "SamModel":
        """As in torch, but parts without a trainable parameter stay in evaluation mode."""
        super().train(mode)
        for part in (self.image_encoder, self.prompt_encoder, self.mask_decoder):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self


def _is_below(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}.")


def build_sam(size: SamSize, seed: int | None = None) -> SamModel:
    """A freshly initialised SAM on the current default device. seed: leaves the global random state alone."""
    return seeded(lambda: SamModel(size), seed)


def seeded(build: Any, seed: int | None) -> Any:
    """Call `build` with the CPU's random state seeded and restored afterwards; None: with the state as it is."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        return build()


def count(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, all or only the trainable ones."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
