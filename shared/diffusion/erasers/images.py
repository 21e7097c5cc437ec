"""Batches for the erasers that learn from images: latents with prompts, and pairs of a forget and a retain batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shared.diffusion.erasers.noising import Noised, draw_normal, noised
from shared.diffusion.erasers.options import Anchors
from shared.errors import DataError


@dataclass(frozen=True)
class LatentImages:
    """Encoded images and their prompts, on one device.

    mean (N, C, h, w): of the autoencoder's posterior, scaled; std: its width, if latents are to be drawn from it.
    prompt (N,) int64: row in `states` (P, L, d); anchors (P, L, d): states of what each prompt is to become.
    """

    mean: Tensor
    prompt: Tensor
    states: Tensor
    std: Tensor | None = None
    anchors: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) or len(self.mean) != len(self.prompt):
            raise DataError(
                f"{len(self.mean)} images with {len(self.prompt)} prompts: each image needs one, at least 1"
            )
        bad = (~torch.isfinite(self.mean).flatten(1).all(1)).nonzero()
        if len(bad):
            raise DataError(f"image {int(bad[0])}: its latent holds NaN or infinity; look at the image and the encoder")

    def __len__(self) -> int:
        return len(self.mean)

    def latents(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Latents of the images `index`: the means, or draws from the posterior if its width is known."""
        mean = self.mean[index]
        if self.std is None:
            return mean
        return mean + self.std[index] * draw_normal(mean.shape, generator, mean)

    def anchors_of(self, index: Tensor) -> Tensor:
        """(B, L, d) of their anchors. Raises DataError if there are none."""
        if self.anchors is None:
            raise DataError("these images have no anchor prompts, which this eraser needs")
        return self.anchors[self.prompt[index]]


class RelabelBatch(NamedTuple):
    """A forget batch, to be predicted as under its anchor, and a retain batch.

    forget: noisy images of the concept with its prompts; target_latents (B, C, h, w): the noisy images that the target
    is predicted from (the same, unless the posterior is drawn twice); anchor (B, L, d).
    """

    forget: Noised
    target_latents: Tensor
    anchor: Tensor
    retain: Noised


def noised_batch(images: LatentImages, index: Tensor, abar: Tensor, generator: torch.Generator) -> Noised:
    """The images `index` at uniform times, with fresh noise."""
    index = index.to(images.mean.device)
    clean = images.latents(index, generator)
    timesteps = torch.randint(len(abar), (len(clean),), generator=generator).to(clean.device)
    noise = draw_normal(clean.shape, generator, clean)
    prompt = images.prompt[index]
    return Noised(noised(clean, noise, timesteps, abar), timesteps, noise, images.states[prompt], prompt)


def one_pass(
    images: LatentImages, abar: Tensor, batch: int, generator: torch.Generator, shuffle: bool
) -> Iterator[Noised]:
    """All images once, each at a random time."""
    order = torch.randperm(len(images), generator=generator) if shuffle else torch.arange(len(images))
    for index in order.split(batch):
        yield noised_batch(images, index, abar, generator)


class RandomImages(Iterator[Noised]):
    """`iterations` batches of images drawn with replacement, at uniform times."""

    def __init__(
        self, images: LatentImages, abar: Tensor, batch: int, iterations: int, generator: torch.Generator
    ) -> None:
        self._images, self._abar, self._generator = images, abar, generator
        self._batch, self._left = batch, iterations
        self._iterations = iterations

    def __len__(self) -> int:
        return self._iterations

    def __next__(self) -> Noised:
        if not self._left:
            raise StopIteration
        self._left -= 1
        index = torch.randint(len(self._images), (self._batch,), generator=self._generator)
        return noised_batch(self._images, index, self._abar, self._generator)


class Pairs(Iterator[RelabelBatch]):
    """One epoch: all forget images once, each batch with a retain batch of its size from a shuffled, endless stream.

    anchors: see RelabelOptions. resample_posterior: the target's latent is a second draw from the posterior, under the
    same noise and time. first_batch_bug: both loaders start anew at every step: each forget batch is the first.
    """

    def __init__(
        self,
        forget: LatentImages,
        retain: LatentImages,
        abar: Tensor,
        batch: int,
        generator: torch.Generator,
        *,
        anchors: Anchors = "concept",
        shuffle_forget: bool = True,
        resample_posterior: bool = False,
        first_batch_bug: bool = False,
    ) -> None:
        if resample_posterior and forget.std is None:
            raise DataError("resample_posterior: these images came without their posterior's width")
        self._forget, self._retain, self._abar, self._generator = forget, retain, abar, generator
        self._anchors, self._resample, self._anew = anchors, resample_posterior, first_batch_bug
        num = len(forget)
        order = torch.randperm(num, generator=generator) if shuffle_forget else torch.arange(num)
        batches = list(order.split(batch))
        self._batches = [batches[0]] * len(batches) if first_batch_bug else batches
        self._stream = torch.empty(0, dtype=torch.int64)
        self._step = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> RelabelBatch:
        if self._step >= len(self):
            raise StopIteration
        index = self._batches[self._step].to(self._forget.mean.device)
        self._step += 1
        forget = noised_batch(self._forget, index, self._abar, self._generator)
        chosen = self._next_retained(len(index))
        retain = noised_batch(self._retain, chosen, self._abar, self._generator)
        target = forget.latents
        if self._resample:
            again = self._forget.latents(index, self._generator)
            target = noised(again, forget.noise, forget.timesteps, self._abar)
        anchor = retain.states if self._anchors == "retain" else self._forget.anchors_of(index)
        return RelabelBatch(forget, target, anchor, retain)

    def _next_retained(self, count: int) -> Tensor:
        if self._anew:
            # a loader that starts anew shuffles anew
            self._stream = torch.empty(0, dtype=torch.int64)
        while len(self._stream) < count:
            more = torch.randperm(len(self._retain), generator=self._generator)
            self._stream = torch.cat([self._stream, more])
        chosen, self._stream = self._stream[:count], self._stream[count:]
        return chosen
