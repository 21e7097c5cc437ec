"""One view of a text-to-image model: prompts to states, images to latents and back, seeds to images.

The same at every scale: Stable Diffusion from a manifest, or a small model from a folder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.diffusion.folder import PARTS, pipeline_folder, read_parts, write_parts
from shared.diffusion.options import SampleOptions
from shared.diffusion.sample import (
    ClassifierFree,
    Guidance,
    PromptOnly,
    denoise,
    generators,
    initial_noise,
    make_scheduler,
)
from shared.errors import DataError
from shared.gpu.precision import precision_for


@dataclass
class TextToImage:
    """A latent diffusion model. Images (B, 3, H, W) in [0, 1]; latents scaled as the U-Net takes them; prompt states
    (B, L, D), the text encoder's last hidden states after its final norm."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return next(self.unet.parameters()).device

    @property
    def window(self) -> int:
        """L, the text encoder's positions, both special tokens included."""
        return int(self.text_encoder.config.max_position_embeddings)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image's latent."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def token_table(self) -> Tensor:
        """(V, D) token embeddings."""
        table: Tensor = self.text_encoder.get_input_embeddings().weight
        return table

    def to(self, device: torch.device | str) -> "TextToImage":
        """Move the models, laid out as the device's kernels want them."""
        for model in (self.unet, self.vae, self.text_encoder):
            precision_for(torch.device(device)).arrange(model.to(device))
        return self

    def save(self, folder: str | Path) -> None:
        """Write the pipeline folder; `load_text_to_image` and diffusers' own pipelines read it."""
        write_parts({part: getattr(self, part) for part in PARTS}, folder)

    def tokenize(self, prompts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """Ids (B, L) with begin, end and padding.

        Raises DataError, by the prompt's index (a prompt itself may not be shown), for one that is longer than the
        window unless `truncate`, or that holds a word which the tokenizer does not know.
        """
        plain = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if len(prompts) else []
        for index, ids in enumerate(plain):
            if not truncate and len(ids) > self.window - 2:
                fits = f"the text encoder's window holds {self.window - 2}"
                raise DataError(f"prompt {index} has {len(ids)} tokens, {fits}: shorten it or leave it out")
            if self.tokenizer.unk_token_id in ids:
                raise DataError(f"prompt {index} holds a word that the tokenizer does not know")
        encoded = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.window, truncation=True, return_tensors="pt"
        )
        ids_bl: Tensor = encoded["input_ids"].to(self.device)
        return ids_bl

    def tokens(self, text: str) -> list[int]:
        """Token ids of one text without specials, not cut."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode_tokens(self, ids: Tensor) -> list[str]:
        """Texts of ids (B, L) without special tokens. Tokenised again they need not give the same ids."""
        return [str(text) for text in self.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True)]

    def encode(self, prompts: Sequence[str] | Tensor, embeddings: Tensor | None = None) -> Tensor:
        """States (B, L, D) of prompts or of their ids (B, L).

        embeddings (B, L, D): in the place of the table's rows of these ids, as attacks need it. The product of one-hot
        rows with `token_table` gives the states of the ids to the bit, and gradients reach the rows. (Under TF32 that
        product would round the table: look the rows up there.)
        """
        ids = prompts if isinstance(prompts, Tensor) else self.tokenize(prompts)
        with _replaced_embeddings(self.text_encoder, embeddings):
            states: Tensor = self.text_encoder(ids)[0]
        return states

    def to_latents(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of images: the posterior's mean, or a draw from it with a `generator` on the CPU."""
        posterior = self.vae.encode(images.to(self.device, self.vae.dtype) * 2 - 1).latent_dist
        latents = posterior.mean
        if generator is not None:
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            latents = latents + posterior.std * noise
        scaled: Tensor = latents * self.vae.config.scaling_factor
        return scaled

    def to_images(self, latents: Tensor) -> Tensor:
        """Images of latents, clipped to [0, 1], float32."""
        decoded = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
        images: Tensor = (decoded.float() / 2 + 0.5).clamp(0, 1)
        return images

    @torch.no_grad()
    def generate_latents(
        self,
        states: Tensor,
        seeds: Sequence[int],
        options: SampleOptions,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Latents (N, C, h, w), one for each of the states (N, L, D) and seeds: the same whatever the batch.

        guidance: how predictions are combined; default: classifier-free at `options.guidance`.
        """
        if len(states) != len(seeds):
            raise ValueError(f"{len(states)} prompts but {len(seeds)} seeds")
        guidance = guidance or (PromptOnly() if options.guidance == 1 else ClassifierFree(options.guidance))
        branches = guidance.branches(self.encode([""])[0], states)
        self.unet.eval()
        parts = []
        for start in range(0, len(states), options.batch):
            rows = slice(start, start + options.batch)
            sources = generators(seeds[rows])
            part = denoise(
                self.predict,
                branches[:, rows],
                initial_noise(self.latent_shape, sources).to(self.device, self.unet.dtype),
                make_scheduler(self.scheduler, options.scheduler),
                guidance.start(rows),
                options.num_steps,
                eta=options.eta,
                sources=sources,
            )
            parts.append(part)
        latents = torch.cat(parts) if parts else torch.empty(0, *self.latent_shape, device=self.device)
        _refuse_not_finite(latents)
        return latents

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], options: SampleOptions, guidance: Guidance | None = None
    ) -> Tensor:
        """Images (N, 3, H, W) of prompts, one for each seed."""
        unique = list(dict.fromkeys(prompts))
        states = self.encode(unique)[[unique.index(prompt) for prompt in prompts]]
        latents = self.generate_latents(states, seeds, options, guidance)
        return torch.cat([self.to_images(part) for part in latents.split(options.batch)])

    def predict(self, latents: Tensor, timestep: Tensor, states: Tensor) -> Tensor:
        """Noise predicted by the U-Net."""
        predicted: Tensor = self.unet(latents, timestep, encoder_hidden_states=states, return_dict=False)[0]
        return predicted


def load_text_to_image(
    source: str | Path, *, dtype: str = "float32", device: torch.device | str = "cpu", root: Path | None = None
) -> TextToImage:
    """The model of a pipeline folder or of a manifest (pulled under `root`), frozen and in eval mode.

    Raises DataError, in one line with the folder, if a part is damaged, has weights missing, or is of another kind.
    """
    return TextToImage(**read_parts(pipeline_folder(source, root), getattr(torch, dtype))).to(device)


@contextmanager
def _replaced_embeddings(text_encoder: Any, embeddings: Tensor | None) -> Iterator[None]:
    """While open, the text encoder's token embeddings are the given ones.

    transformers' CLIPTextModel takes no embeddings as input, and where its mask and positions are made has moved
    between releases: a hook behind the table leaves all of that to the library.
    """
    if embeddings is None:
        yield
        return
    table = text_encoder.get_input_embeddings()
    handle = table.register_forward_hook(lambda module, inputs, output: embeddings.to(output.dtype))
    try:
        yield
    finally:
        handle.remove()


def _refuse_not_finite(latents: Tensor) -> None:
    finite = latents.isfinite().flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise DataError(
            f"{int((~finite).sum())} of {len(latents)} latents are not finite, first that of prompt {first}: "
            "the model has diverged, or its number format is too narrow"
        )
