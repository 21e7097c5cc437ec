"""Answers of a promptable model, or of a method that is none, to the prompts of a batch of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.prompts import Prompt
from shared.segmentation.resize import resize_image
from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Array

_PIXELS_AT_ONCE = 1 << 26  # of enlarged logits, 256 MB
_LOGITS_AT_ONCE = {"cpu": 4 << 16, "cuda": 32 << 16}  # of a decoder call: 4 and 32 prompts of SAM's own size


class Masker(Protocol):
    """A method that is no network: masks (n, H, W) bool of n prompts in pixels of an image (H, W, 3) uint8."""

    def masks(self, image: Array, prompts: list[Prompt]) -> Array: ...


@dataclass(frozen=True)
class Asked:
    """One image with its questions. picture: (h, w, 3) uint8 as the model sees it. compared: (n, H', W') bool, the
    true masks where they are compared. prompts: a list of n for each trial.
    """

    index: int
    name: str
    image: Array
    picture: Array
    compared: Array
    prompts: list[list[Prompt]]
    is_map: bool

    @property
    def flat(self) -> list[Prompt]:
        """The prompts of all trials, one trial after the other."""
        return [prompt for trial in self.prompts for prompt in trial]


@dataclass(frozen=True)
class Answer:
    """masks: (trials, n, H', W') bool; scores: (trials, n), by which masks are painted over each other."""

    masks: Array
    scores: Array


class PlainAnswers:
    """A method that sees pictures as they are."""

    def __init__(self, masker: Masker) -> None:
        self.masker = masker

    def picture(self, image: Array) -> Array:
        return image

    def answers(self, batch: Sequence[Asked]) -> Iterator[Answer]:
        for asked in batch:
            shape = len(asked.prompts), *asked.compared.shape
            masks = self.masker.masks(asked.image, asked.flat) if asked.flat else np.zeros(0, bool)
            yield Answer(masks.reshape(shape), np.zeros(shape[:2]))


class SamAnswers:
    """A promptable model: images are embedded in batches, all prompts of a batch decoded in one call, or a few."""

    def __init__(self, prompted: Prompted, spec: PromptedSpec) -> None:
        self.prompted, self.spec = prompted, spec
        self.model = prompted.model.eval()
        self.side = self.model.size.image
        self._fit = ResizeLongestSide(self.side)

    def picture(self, image: Array) -> Array:
        """The image in the model's square, or its longer side fitted to it."""
        if self.spec.keep_aspect:
            return np.asarray(self._fit.apply_image(image))
        return resize_image(image, (self.side, self.side))

    @torch.inference_mode()
    def answers(self, batch: Sequence[Asked]) -> Iterator[Answer]:
        logits, scores = self._decoded(batch)
        done = 0
        for asked in batch:
            number, shape = len(asked.flat), (len(asked.prompts), *asked.compared.shape)
            masks = self._enlarged(logits[done : done + number], asked).reshape(shape)
            yield Answer(masks, scores[done : done + number].cpu().numpy().reshape(shape[:2]))
            done += number

    def _decoded(self, batch: Sequence[Asked]) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, L, L) and predicted IoU (N,) of every prompt of the batch."""
        flat = [(place, prompt) for place, asked in enumerate(batch) for prompt in asked.flat]
        low = self.model.size.low_res
        if not flat:
            return torch.zeros(0, 1, low, low), torch.zeros(0)
        embeddings = self.model.mask_decoder.prepare(self.model.embed(self._pixels(batch)))
        prompts = as_prompts([prompt for _, prompt in flat], [place for place, _ in flat]).to(self.model.device)
        at_once = max(1, _LOGITS_AT_ONCE.get(self.model.device.type, _LOGITS_AT_ONCE["cuda"]) // low**2)
        parts = [self._best(embeddings, prompts[i : i + at_once]) for i in range(0, len(prompts), at_once)]
        return torch.cat([logits for logits, _ in parts]), torch.cat([scores for _, scores in parts])

    def _best(self, embeddings: Embeddings, prompts: Prompts) -> tuple[Tensor, Tensor]:
        found = self.model(embeddings, prompts, multimask=self.prompted.multimask, **self.prompted.decode)
        best = found.iou.argmax(1)
        rows = torch.arange(len(best), device=best.device)
        return found.logits[rows, best][:, None].float(), found.iou[rows, best].float()

    def _pixels(self, batch: Sequence[Asked]) -> Tensor:
        """(I, 3, S, S) on the model's device. What an image leaves has the mean colour: 0 after normalisation."""
        if not self.spec.keep_aspect:
            stacked = torch.from_numpy(np.stack([asked.picture for asked in batch]))
            return stacked.to(self.model.device).permute(0, 3, 1, 2)
        pixels = self.model.pixel_mean.expand(len(batch), -1, self.side, self.side).clone()
        for place, asked in enumerate(batch):
            height, width = asked.picture.shape[:2]
            pixels[place, :, :height, :width] = torch.from_numpy(asked.picture.copy()).permute(2, 0, 1).to(pixels)
        return pixels

    def _enlarged(self, logits: Tensor, asked: Asked) -> Array:
        """Masks (N, H', W') bool where they are compared."""
        size = asked.compared.shape[1], asked.compared.shape[2]
        at_once = max(1, _PIXELS_AT_ONCE // max(size[0] * size[1], self.side**2))
        masks = np.zeros((len(logits), *size), bool)
        for start in range(0, len(logits), at_once):
            some = logits[start : start + at_once]
            if self.spec.keep_aspect:
                full = cast(Any, self.model).postprocess_masks(some, asked.picture.shape[:2], size)
            else:
                full = F.interpolate(some, size, mode="bilinear", align_corners=False)
            masks[start : start + at_once] = (full[:, 0] > self.spec.threshold).cpu().numpy()
        return masks


def as_prompts(prompts: Sequence[Prompt], images: Sequence[int]) -> Prompts:
    """Prompts of one kind (all boxes, or all equally many points) as one batch; images: of which image each is."""
    index = torch.tensor(images, dtype=torch.long)
    if prompts[0].box is not None:
        return Prompts(index, boxes=torch.from_numpy(np.stack([cast(Array, p.box) for p in prompts])))
    points = torch.from_numpy(np.stack([cast(Array, p.points) for p in prompts]))
    labels = torch.from_numpy(np.stack([cast(Array, p.point_labels) for p in prompts]))
    return Prompts(index, points=points, labels=labels)
