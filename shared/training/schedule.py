"""Learning-rate schedules as pure functions of the position in the run: nothing to resume."""

import math
from dataclasses import dataclass

from shared.training.options import ScheduleOptions


@dataclass(frozen=True)
class Schedule:
    """Factor on the learning rate over a run of `epochs` epochs; start: epochs of it that another run has done."""

    options: ScheduleOptions
    epochs: int
    start: int = 0

    @property
    def per_step(self) -> bool:
        """Whether the rate changes at every step; else once an epoch."""
        return self.options.unit == "step"

    def factor(self, epoch: int, step: int = 0, num_steps: int = 1) -> float:
        """Factor at `step` (from 0) of the `num_steps` steps of `epoch` (from 0).

        With unit "epoch" the values are those of torch's MultiStepLR,
        CosineAnnealingLR(T_max=epochs) and LinearLR(start_factor=1/warmup) stepped after each
        epoch. A warm-up of w units gives 1/w, 2/w, ... 1.
        """
        options = self.options
        tick = 1 / num_steps if self.per_step else 1.0
        position = self.start + (epoch + step * tick if self.per_step else float(epoch))
        rising = 1.0
        if options.warmup:
            # rounded, against the noise of step * tick
            rising = min(1.0, round((position + tick) / options.warmup, 12))
        return rising * self._decay(position)

    def _decay(self, position: float) -> float:
        options = self.options
        if options.kind == "multistep":
            return options.gamma ** sum(position >= milestone for milestone in options.milestones)
        if options.kind in ("cosine", "linear"):
            done = min(1.0, max(0.0, position - options.warmup) / max(self.epochs - options.warmup, 1e-12))
            return (1 + math.cos(math.pi * done)) / 2 if options.kind == "cosine" else 1 - done
        return 1.0
