"""Textual inversion (Gal et al., ICLR 2023, arXiv:2208.01618): token embeddings that describe a set of images."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, TextAccess
from shared.diffusion.erasers.images import RandomImages
from shared.diffusion.erasers.noising import Noised, simple_loss
from shared.diffusion.erasers.options import InversionOptions
from shared.diffusion.erasers.tokens import token_mask


class ConceptWords(nn.Module):
    """The embeddings (n, d) of a concept's n tokens, wherever they stand in its prompts; they start at the table's."""

    def __init__(self, concept: Concept, context: EraseContext) -> None:
        super().__init__()
        self._text: TextAccess = context.text_access()
        self._ids = self._text.ids(concept.prompts)
        word = context.tokens(concept.name)
        length = self._ids.shape[1]
        masks = [token_mask(context.tokens(p), word, length, p) for p in concept.prompts]
        self._where = torch.stack(masks).to(self._ids.device)
        self.vectors = nn.Parameter(self._text.table[word].detach().clone())

    def forward(self, prompt: Tensor) -> Tensor:
        """States (B, L, d) of the concept's prompts `prompt` (B,) with these embeddings."""
        ids, where = self._ids[prompt], self._where[prompt]
        embeddings = self._text.table[ids]
        repeats = int(where.sum()) // len(self.vectors)
        embeddings = embeddings.index_put(where.nonzero(as_tuple=True), self.vectors.repeat(repeats, 1))
        return self._text.states(ids, embeddings)


def invert(unet: nn.Module, concept: Concept, options: InversionOptions, context: EraseContext) -> Tensor:
    """States (P, L, d) of the concept's prompts with embeddings trained on its images by L_simple; the U-Net and the
    text encoder stay as they are."""
    unet.requires_grad_(False)
    images, words = concept.images("forget"), ConceptWords(concept, context)

    def batches(_epoch: int, generator: torch.Generator) -> Iterator[Noised]:
        return RandomImages(images, context.abar, options.batch, options.iterations, generator)

    def loss(net: nn.Module, batch: Noised) -> Tensor:
        return simple_loss(unet, batch._replace(states=net(batch.prompt)))

    context.fit(words, batches, loss, options, stream="invert")
    with torch.no_grad():
        states: Tensor = words(torch.arange(len(concept.prompts), device=words.vectors.device))
    return states
