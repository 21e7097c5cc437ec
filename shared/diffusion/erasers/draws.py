"""Half-finished drawings of the student: where ESD and its relatives take their noisy images from.

n uniform DDIM times 1, 1 + s, ..., s = T // n, as the released code of ESD has them. Two of its quirks are kept: a
slice cuts the last time off, so that pure noise enters at the last but one; and the loop breaks after the step of index
k - 1, so that the image is one to three bins cleaner than the training time, which is uniform in bin k.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.noising import draw_normal, predict
from shared.diffusion.erasers.options import DrawOptions
from shared.gpu.precision import precision_for


class DrawnBatch(NamedTuple):
    """Half-finished drawings: latents x_t (B, C, h, w), timesteps (B,), states (B, L, d) of the concept's prompt and of
    the neutral prompt, prompt (B,) int64: which of the concept's prompts."""

    latents: Tensor
    timesteps: Tensor
    concept: Tensor
    null: Tensor
    prompt: Tensor


def ddim_times(num_steps: int, total: int) -> Tensor:
    """(num_steps,) int64, rising: 1, 1 + s, ..., with s = total // num_steps."""
    return torch.arange(num_steps) * (total // num_steps) + 1


def ddim_step(latents: Tensor, eps: Tensor, kept: Tensor, kept_before: Tensor) -> Tensor:
    """One deterministic DDIM step (arXiv:2010.02502, eq. 12, sigma 0) from abar `kept` to `kept_before`."""
    clean = (latents - (1 - kept).sqrt() * eps) / kept.sqrt()
    return kept_before.sqrt() * clean + (1 - kept_before).sqrt() * eps


def guided(unet: nn.Module, latents: Tensor, time: Tensor, concept: Tensor, null: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, eps(null) + guidance (eps(c) - eps(null)), with one call of the U-Net."""
    times = time.expand(2 * len(latents))
    without, with_concept = predict(unet, latents.repeat(2, 1, 1, 1), times, torch.cat([null, concept])).chunk(2)
    return without + guidance * (with_concept - without)


@torch.no_grad()
def half_drawn(
    unet: nn.Module,
    noise: Tensor,
    concept: Tensor,
    null: Tensor,
    abar: Tensor,
    *,
    guidance: float,
    num_steps: int,
    stop: int,
) -> Tensor:
    """The drawing that starts from `noise` at index num_steps - 2 and ends with the step of index max(stop - 1, 0).

    These are num_steps - stop steps, and num_steps - 1 for stop 0, which is thus the same as stop 1.
    """
    kept = abar.to(noise)
    times = ddim_times(num_steps, len(abar)).to(noise.device)
    latents = noise
    for index in range(num_steps - 2, max(stop - 1, 0) - 1, -1):
        eps = guided(unet, latents, times[index], concept, null, guidance)
        # before the first time comes time 0
        before = kept[times[index - 1]] if index else kept[0]
        latents = ddim_step(latents, eps, kept[times[index]], before)
    return latents


class StudentDraws(Iterator[DrawnBatch]):
    """Batches that the student draws with its present weights.

    concept (P, L, d): states of the concept's prompts, of which every image takes one at random; null (1, L, d): of the
    neutral prompt; shape: (C, h, w) of a latent.
    """

    def __init__(
        self,
        unet: nn.Module,
        concept: Tensor,
        null: Tensor,
        abar: Tensor,
        shape: tuple[int, ...],
        options: DrawOptions,
        generator: torch.Generator,
    ) -> None:
        self._unet, self._concept, self._null, self._abar = unet, concept, null, abar
        self._shape, self._options, self._generator = shape, options, generator
        self._step = 0

    def __len__(self) -> int:
        return self._options.iterations

    def skip(self, count: int) -> None:
        """Pass over batches without drawing them; the loop restores the generator itself."""
        self._step += count

    def __next__(self) -> DrawnBatch:
        if self._step >= len(self):
            raise StopIteration
        self._step += 1
        options, generator, batch = self._options, self._generator, self._options.batch
        stop = int(torch.randint(options.draw_steps, (), generator=generator))
        prompt = torch.randint(len(self._concept), (batch,), generator=generator)
        timesteps = times_in_bin(stop, options.draw_steps, len(self._abar), batch, generator)
        noise = draw_normal((batch, *self._shape), generator, self._concept)
        concept, null = self._concept[prompt.to(self._concept.device)], self._null.expand(batch, -1, -1)
        with precision_for(noise.device).context():
            latents = half_drawn(
                self._unet,
                noise,
                concept,
                null,
                self._abar,
                guidance=options.start_guidance,
                num_steps=options.draw_steps,
                stop=0 if options.esd_no_stop else stop,
            )
        return DrawnBatch(latents, timesteps.to(noise.device), concept, null, prompt.to(noise.device))


def times_in_bin(bin_: int, num_bins: int, total: int, count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64 training times, uniform in bin `bin_` of `num_bins` equal bins of 0..total - 1."""
    low, high = round(bin_ * total / num_bins), round((bin_ + 1) * total / num_bins)
    return torch.randint(low, high, (count,), generator=generator)
