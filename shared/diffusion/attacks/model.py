"""A text-to-image model of the diffusion track as an attack sees it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.erasers.context import GuidanceFor, plain_guidance
from shared.diffusion.options import SampleOptions
from shared.diffusion.text_to_image import TextToImage
from shared.errors import DataError


class PipelineModel:
    """`victim.Model` over a pipeline: sampling as in `options` (guidance comes with each prompt), `guidance` as the
    eraser left it. The weights are frozen here."""

    def __init__(self, pipeline: TextToImage, options: SampleOptions, guidance: GuidanceFor = plain_guidance) -> None:
        self._pipeline, self._options, self._guidance = pipeline, options, guidance
        self.calls = 0
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
            part.requires_grad_(False)
            part.eval()
        self.abar: Tensor = pipeline.scheduler.alphas_cumprod
        self.window = pipeline.window
        tokenizer = pipeline.tokenizer
        self.start, self.end = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.special: Sequence[int] = tokenizer.all_special_ids

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without specials, not cut. Raises DataError for an unknown word (a small model's)."""
        ids = self._pipeline.tokens(text)
        if self._pipeline.tokenizer.unk_token_id in ids:
            raise DataError("a prompt holds a word that the tokenizer does not know")
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """The string of token ids, without specials."""
        return str(self._pipeline.tokenizer.decode(list(ids), skip_special_tokens=True))

    def table(self) -> Tensor:
        """(V, d): the token embeddings."""
        return self._pipeline.token_table

    def encode(self, embeddings: Tensor) -> Tensor:
        """States (B, L, d) of token embeddings (B, L, d), with gradient."""
        # the ids only say how many positions there are
        ids = torch.full(embeddings.shape[:2], self.end, device=embeddings.device)
        return self._pipeline.encode(ids, embeddings)

    def noise(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The U-Net's prediction: one call."""
        self.calls += 1
        return self._pipeline.predict(latents, timesteps, states)

    def draw(self, ids: Tensor, prompts: Sequence[str], seeds: Sequence[int], guidance: Sequence[float]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of full token ids (B, L)."""
        with torch.no_grad():
            states = self._pipeline.encode(ids.to(self._pipeline.device))
            rule = self._guidance(prompts, list(guidance))
            latents = self._pipeline.generate_latents(states, list(seeds), self._options, rule)
            return torch.cat([self._pipeline.to_images(part) for part in latents.split(self._options.batch)])


@torch.no_grad()
def draw_targets(original: TextToImage, prompts: Sequence[Prompt], options: SampleOptions) -> Tensor:
    """(P, C, h, w): latents (posterior means) of images that the original draws from the prompts and their seeds."""
    rule = plain_guidance([p.text for p in prompts], [p.guidance for p in prompts])
    images = original.generate([p.text for p in prompts], [p.seed for p in prompts], options, rule)
    return torch.cat([original.to_latents(part) for part in images.split(options.batch)])
