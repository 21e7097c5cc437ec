"""Negative entities: classes that an image does not show, as further prompts with empty targets (section 3.3)."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class ClassQueues:
    """The latest pooled features of each class, at most `length` each. Part of no checkpoint: a run that continues
    after a kill starts with empty queues, and has no negatives until they are filled again."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.kept: dict[str, deque[Tensor]] = {}

    def add(self, names: Sequence[str], features: Tensor) -> None:
        """Prototype and pooled feature (N, 2, D) of N classes; what left no token (all 0) is not kept."""
        for name, vector in zip(names, features.detach(), strict=True):
            if vector.any():
                self.kept.setdefault(name, deque(maxlen=self.length)).append(vector.clone())

    def draw(self, shown: Sequence[str], most: int, rng: np.random.Generator) -> tuple[list[str], Tensor]:
        """At most `most` classes that are not among the `shown` ones, in random order, with what was
        kept of one example each, (n, 2, D)."""
        absent = [name for name in sorted(self.kept) if name not in set(shown)]
        chosen = [absent[i] for i in rng.permutation(len(absent))[:most]]
        features = [self.kept[name][int(rng.integers(len(self.kept[name])))] for name in chosen]
        return chosen, torch.stack(features) if features else torch.zeros(0)
