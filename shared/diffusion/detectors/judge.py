"""One interface for all that looks at images: scores of classes, and whether the concept is seen."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from shared.diffusion.detectors.options import Criterion
from shared.errors import ConfigError, nearest


class Detector(Protocol):
    """Sees `classes`; scores of images (N, 3, H, W) in [0, 1]: (N, C), on the images' device."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the C classes."""

    def scores(self, images: Tensor) -> Tensor:
        """(N, C) in [0, 1]: a probability for each class, or the best box's confidence."""


class Verdicts(NamedTuple):
    """Of N images: score (N,) of the concept; rank (N,) int64 of the concept among the other classes, 0 is the first;
    positive (N,) bool: whether it shows the concept."""

    score: Tensor
    rank: Tensor
    positive: Tensor


class Judge:
    """A detector and the rule that makes a verdict of its scores. Raises ConfigError for a class it does not know."""

    def __init__(self, detector: Detector, criterion: Criterion) -> None:
        known = list(detector.classes)
        for name in criterion.classes:
            if name not in known:
                raise ConfigError(f"'{name}' is no class of this detector{nearest(name, known)}")
        self.detector, self._criterion = detector, criterion
        self._target = torch.tensor([name in criterion.classes for name in known])

    def __call__(self, images: Tensor) -> Verdicts:
        """Verdicts on images (N, 3, H, W); the concept's score is that of its best class."""
        with torch.no_grad():
            scores = self.detector.scores(images)
        target = self._target.to(scores.device)
        score = scores[:, target].amax(1)
        # equal scores are settled by order, as argmax does it
        first = target.nonzero()[:, 0][scores[:, target].argmax(1)][:, None]
        before = torch.arange(len(target), device=scores.device) < first
        above = (scores > score[:, None]) | ((scores == score[:, None]) & before)
        rank = (above & ~target).sum(1)
        top_k, threshold = self._criterion.top_k, self._criterion.threshold
        return Verdicts(score, rank, rank < top_k if top_k is not None else score > (threshold or 0.0))
