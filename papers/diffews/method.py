"""DiffewS (Zhu et al., NeurIPS 2024, arXiv:2410.02369): Stable Diffusion paints the mask of what examples show.

bank = U-Net([image, mask] of the examples)        keys and values of every self-attention, once
x    = -U-Net(image latent | bank)                 one step, without noise
mask = mean over channels of decoded x > 0.25 of its largest value
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from papers.diffews.fusion import Bank, row_of, sampled
from papers.diffews.network import Diffews, Examples, repeated_examples
from papers.diffews.options import Answering, DiffewsOptions, ReleasedOptions
from papers.diffews.pictures import evidence, thresholds
from papers.diffews.pretraining import pictures
from papers.diffews.process import denoised, noise, steps_of
from papers.diffews.released import load_released
from shared.gpu.precision import precision_for
from shared.segmentation.context import Context
from shared.segmentation.episodes.predictor import Example, check_image, checked
from shared.segmentation.episodes.source import View
from shared.segmentation.evaluate.episodes import squared
from shared.segmentation.samples import Array
from shared.training.seeds import stream

ROWS = 16  # examples that pass through the U-Net at once


@dataclass(frozen=True)
class Memory:
    """What is kept of examples: what the network reads of them, and a bank for each time of the denoising."""

    examples: Examples
    banks: dict[int, Bank]

    @property
    def num_bytes(self) -> int:
        """Bytes of all banks: linear in the number of examples."""
        entries = [entry for bank in self.banks.values() for entry in bank.values()]
        return sum(x.numel() * x.element_size() for entry in entries for x in (entry.keys, entry.values))


class FewShot:
    """DiffewS as an in-context segmenter; any number of examples. seed: of noise, and of keys that are sampled."""

    most_examples: int | None = None

    def __init__(self, model: Diffews, answering: Answering, seed: int) -> None:
        self.model, self.answering, self.seed = model.eval(), answering, seed

    @torch.no_grad()
    def remember(self, examples: Sequence[Example], name: str | None = None) -> Memory:
        """The examples' pass through the U-Net. name: not read, the method has no text."""
        views = [self._square(example.image, example.mask) for example in checked(self, examples)]
        images = pictures(np.stack([view.image for view in views]))[None].to(self.device)
        masks = torch.from_numpy(np.stack([view.mask for view in views]))[None].to(self.device)
        with precision_for(self.device).context():
            read = self.model.examples(images, masks)
            return Memory(read, self._banks(read))

    @torch.no_grad()
    def masks(self, memory: Memory, images: Sequence[Array]) -> list[Array]:
        """Masks (H, W) bool of images (H, W, 3) uint8 of any sizes. The painted picture is enlarged to the image's
        size before it is cut at the threshold."""
        for number, image in enumerate(images):
            check_image(image, f"image {number + 1}")
        if not images:
            return []
        found = self.found(memory, images)
        limits = thresholds(found, self.answering)
        masks = []
        for image, picture, limit in zip(images, found, limits, strict=True):
            size = image.shape[:2]
            grey = picture.mean(0)[None, None]
            sized = grey if grey.shape[2:] == size else F.interpolate(grey, size, mode="bilinear")
            masks.append((sized[0, 0] > limit).cpu().numpy())
        return masks

    def found(self, memory: Memory, images: Sequence[Array]) -> Tensor:
        """What the painted pictures say, (B, 3, S, S) in [0, 1]: the object is bright."""
        seen = pictures(np.stack([self._square(image).image for image in images])).to(self.device)
        latent, options = self.model.latent, self.model.options
        with precision_for(self.device).context():
            z = latent.encode(seen)
            draws = [self._denoised(z, memory, draw) for draw in range(self.answering.ensemble)]
            painted = torch.stack([latent.decode(x) for x in draws]).mean(0)
        return evidence(options.target, painted, seen)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.latent.device

    @property
    def side(self) -> int:
        """Pixels of the square that the model sees."""
        return self.model.options.side

    def _square(self, image: Array, mask: Array | None = None) -> View:
        return squared(View(image, np.zeros(image.shape[:2], bool) if mask is None else mask, ""), self.side)

    def _banks(self, examples: Examples) -> dict[int, Bank]:
        """A bank for each time, several times in one pass."""
        times = steps_of(self.answering.steps)
        shots = 1 if examples.latents is None else examples.latents.shape[1]
        found: dict[int, Bank] = {}
        at_once = max(1, ROWS // shots)
        for start in range(0, len(times), at_once):
            part = times[start : start + at_once]
            repeated = repeated_examples(examples, len(part))
            bank = self.model.remember(repeated, torch.tensor(part, device=self.device), self.model.latent.text)
            found |= {time: row_of(bank, row) for row, time in enumerate(part)}
        if self.answering.keys == "sampled":
            return {time: sampled(bank, shots, stream(self.seed, f"keys {time}")) for time, bank in found.items()}
        return found

    def _denoised(self, z: Tensor, memory: Memory, draw: int) -> Tensor:
        model, process = self.model, self.model.options.process
        from_noise = process.scheme == "mn2m"

        def predict(state: Tensor, time: int) -> Tensor:
            query = torch.cat([state, z], 1) if from_noise else state
            times = torch.full((len(z),), time, device=z.device)
            return model.answer(query, times, memory.examples, memory.banks[time], model.latent.text).float()

        start = z
        if from_noise:  # the same for every image, so that an answer does not depend on what else is asked
            start = noise(z.shape[1:], stream(self.seed, f"noise {draw}")).to(z).expand_as(z)
        return denoised(predict, start, process, self.answering.steps)


def diffews(parts: Mapping[str, Any], options: DiffewsOptions, context: Context) -> FewShot:
    """DiffewS from its trained part `model`."""
    return FewShot(parts["model"], options, context.seed)


def released(parts: Mapping[str, Any], options: ReleasedOptions, context: Context) -> FewShot:
    """DiffewS with the authors' weights."""
    return FewShot(load_released(options).to(context.device), options, context.seed)
