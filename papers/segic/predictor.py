"""SegIC as a method of in-context segmentation: still images and videos."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from papers.segic.backbone import FrozenBackbone
from papers.segic.correspondence import pooled, prototypes, similarity, token_masks
from papers.segic.inputs import at_own_size, fitted, fitted_mask
from papers.segic.model import Cues, SegicModel
from papers.segic.text import INSTANCES, TextEncoder, class_text
from shared.errors import DataError
from shared.gpu.precision import precision_for
from shared.segmentation.episodes.follow import fused, object_ids
from shared.segmentation.episodes.predictor import Example, check_image, checked
from shared.segmentation.samples import Array

VIDEO_EPS = 1e-4  # least norm in the cosine of videos


class Memory(NamedTuple):
    """What is kept of E examples. prototype: (D,), visual: (E, D), text: (T,)."""

    prototype: Tensor
    visual: Tensor
    text: Tensor


@dataclass
class Track:
    """An object of a video: features from the frame in which it was given, and from the latest one that showed it."""

    prototype: Tensor
    first: Tensor
    latest: Tensor


@dataclass
class SegicPredictor:
    """Masks of what an example shows.

    Several examples: their pooled features are averaged for the similarity map, and each is a token of its own; SegIC
    is trained with one. A mask that is too small to leave a token of the example has no features (similarity 0
    everywhere), and only the text is left. named: whether the name of a class is read.
    """

    model: SegicModel
    backbone: FrozenBackbone
    texts: TextEncoder
    named: bool = True
    most_examples: int | None = None

    def remember(self, examples: Sequence[Example], name: str | None = None) -> Memory:
        """Pooled features of the examples, and what is said of them. Any name is known; None says nothing."""
        checked(self, examples)
        features = self._features([example.image for example in examples])
        masks = torch.from_numpy(np.stack([fitted_mask(e.mask, self._side) for e in examples])).to(features.device)
        vectors, prototype = self._pooled(features, torch.arange(len(examples)), masks)
        text = self.texts([class_text(name if self.named else None)])[0]
        return Memory(prototype.mean(0), vectors, text.to(features.device))

    def masks(self, memory: Memory, images: Sequence[Array]) -> list[Array]:
        """(H, W) bool of each image."""
        return [(logits > 0).cpu().numpy() for logits in self._logits(memory, images)]

    def scores(self, memory: Memory, images: Sequence[Array]) -> list[Array]:
        """(H, W) float32: the sigmoid of the logit inside the mask, 0 outside."""
        return [_scores(logits) for logits in self._logits(memory, images)]

    def follow(self, frames: Iterable[Array], given: Mapping[int, Array]) -> Iterator[Array]:
        """Every frame by two tokens an object, of the frame in which it was given and of the latest; the similarity map
        is made with the first. Objects see each other's tokens and points (section 3.4).

        A frame in which an object is not found leaves its latest features as they were. Raises DataError for a video
        whose first frame has no object.
        """
        tracks: dict[int, Track] = {}
        for number, frame in enumerate(frames):
            check_image(frame, f"frame {number}")
            if number == 0 and not (0 in given and given[0].any()):
                raise DataError("no object is given in the first frame: there is nothing to follow")
            features = self._features([frame])
            labels = self._step(frame, features, tracks)
            if number in given:
                self._begin(frame, features, given[number], tracks)
                labels = np.where(given[number] > 0, given[number], labels)
            yield labels.astype(np.int32)

    # ---- still images

    @torch.inference_mode()
    def _logits(self, memory: Memory, images: Sequence[Array]) -> list[Tensor]:
        """Logits (H, W) of each image at its own size."""
        for image in images:
            check_image(image)
        if not images:
            return []
        features = self._features(images)
        number = torch.arange(len(images), device=features.device)
        many = len(images)
        cues = Cues(
            image=number,
            prototype=memory.prototype.expand(many, -1),
            visual=memory.visual.expand(many, -1, -1),
            text=memory.text.expand(many, -1),
            crossed=torch.ones_like(number, dtype=torch.bool),
        )
        found = self._decoded(features, cues)
        shapes = (image.shape for image in images)
        return [at_own_size(low, self._side, shape)[0] for low, shape in zip(found[:, None], shapes, strict=True)]

    # ---- videos

    @torch.inference_mode()
    def _step(self, frame: Array, features: Tensor, tracks: dict[int, Track]) -> Array:
        """Label map of a frame; the tracks get its features."""
        if not tracks:
            return np.zeros(frame.shape[:2], np.int32)
        index = torch.zeros(len(tracks), dtype=torch.long, device=features.device)
        text = self.texts([INSTANCES]).to(features.device).expand(len(tracks), -1)
        cues = Cues(
            image=index,
            prototype=torch.stack([track.prototype for track in tracks.values()]),
            visual=torch.stack([torch.stack([track.first, track.latest]) for track in tracks.values()]),
            text=text,
            crossed=torch.ones_like(index, dtype=torch.bool),
            crossed_points=True,
            eps=VIDEO_EPS,
        )
        low = self._decoded(features, cues)
        logits = at_own_size(low, self._side, frame.shape)
        self._update(features, index, low, tracks)
        return fused(dict(zip(tracks, map(_scores, logits), strict=True)), frame.shape[:2])

    def _update(self, features: Tensor, index: Tensor, low: Tensor, tracks: dict[int, Track]) -> None:
        tokens = token_masks((low > 0).float(), features.shape[-1])
        vectors = pooled(features, index, tokens)
        for track, vector, seen in zip(tracks.values(), vectors, tokens.flatten(1).any(1), strict=True):
            if seen:
                track.latest = vector

    def _begin(self, frame: Array, features: Tensor, labels: Array, tracks: dict[int, Track]) -> None:
        ids = [key for key in object_ids(labels) if key not in tracks]
        if not ids:
            return
        masks = np.stack([fitted_mask(labels == key, self._side) for key in ids])
        index = torch.zeros(len(ids), dtype=torch.long)
        found = self._pooled(features, index, torch.from_numpy(masks).to(features.device))
        for key, vector, prototype in zip(ids, *found, strict=True):
            tracks[key] = Track(prototype, vector, vector)

    # ---- both

    @property
    def _side(self) -> int:
        return self.model.image_side

    @torch.inference_mode()
    def _features(self, images: Sequence[Array]) -> Tensor:
        with precision_for(self.backbone.device).context():
            return self.backbone.frozen_features(*fitted(images, self._side))

    def _pooled(self, features: Tensor, index: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features, and what maps are made with, (N, D) each."""
        tokens = token_masks(masks, features.shape[-1])
        vectors = pooled(features, index, tokens)
        return vectors, prototypes(features, index, tokens, True) if self.model.is_dense else vectors

    def _decoded(self, features: Tensor, cues: Cues) -> Tensor:
        """Low-resolution logits (N, L, L)."""
        with precision_for(features.device).context():
            return self.model(features, cues).logits[:, 0].float()


@dataclass
class ThresholdPredictor:
    """The similarity map itself, cut at a threshold: correspondence without any training."""

    backbone: FrozenBackbone
    threshold: float
    dense: bool = False
    most_examples: int | None = None

    def remember(self, examples: Sequence[Example], name: str | None = None) -> Tensor:
        """(D,), the mean over the examples; the name is not read."""
        checked(self, examples)
        side = self.backbone.options.image
        features = self._features([example.image for example in examples])
        masks = torch.from_numpy(np.stack([fitted_mask(e.mask, side) for e in examples])).to(features.device)
        tokens = token_masks(masks, features.shape[-1])
        return prototypes(features, torch.arange(len(examples)), tokens, self.dense).mean(0)

    def masks(self, memory: Tensor, images: Sequence[Array]) -> list[Array]:
        """(H, W) bool of each image."""
        return [found > self.threshold for found in self.maps(memory, images)]

    def scores(self, memory: Tensor, images: Sequence[Array]) -> list[Array]:
        """(H, W) float32: the similarity inside the mask, 0 outside."""
        return [np.where(found > self.threshold, np.clip(found, 0, 1), 0) for found in self.maps(memory, images)]

    @torch.inference_mode()
    def maps(self, memory: Tensor, images: Sequence[Array]) -> list[Array]:
        """Similarity (H, W) float32 in -1..1 of each image."""
        for image in images:
            check_image(image)
        features = self._features(images)
        index, side = torch.arange(len(images), device=features.device), self.backbone.options.image
        quarter = similarity(features, memory.expand(len(images), -1), index, side // 4, self.dense)
        shapes = (image.shape for image in images)
        found = (at_own_size(low, side, shape)[0] for low, shape in zip(quarter[:, None], shapes, strict=True))
        return [values.cpu().numpy() for values in found]

    @torch.inference_mode()
    def _features(self, images: Sequence[Array]) -> Tensor:
        with precision_for(self.backbone.device).context():
            return self.backbone.frozen_features(*fitted(images, self.backbone.options.image))


def _scores(logits: Tensor) -> Array:
    values = torch.where(logits > 0, logits.sigmoid(), 0.0)
    return values.float().cpu().numpy()
