"""What training a part, and evaluating a row, get besides models and options: device, seed, data, the training loop."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shared.results.records import Metric
from shared.segmentation.data import DataSpec, open_source
from shared.segmentation.samples import Source
from shared.training.checkpoint import Checkpoint
from shared.training.loop import EpochBatches, FitResult, Loss, fit
from shared.training.options import ScheduleOptions
from shared.training.schedule import Schedule
from shared.training.seeds import stream, stream_seed


@dataclass(frozen=True)
class Context:
    """One job with one seed.

    data: the training sets by name. workdir and key: where trainings keep their checkpoints (None: nowhere), and the
    digest of what they belong to. threads: CPU threads of the job. measured: metrics of the method's own; fits: what
    the trainings of this job cost.
    """

    device: torch.device
    seed: int
    threads: int = 1
    data: dict[str, DataSpec] = field(default_factory=dict)
    workdir: Path | None = None
    key: str = ""
    measured: list[Metric] = field(default_factory=list)
    fits: list[FitResult] = field(default_factory=list)
    _opened: dict[str, Source] = field(default_factory=dict)

    def source(self, name: str) -> Source:
        """A training set of the task."""
        if name not in self._opened:
            self._opened[name] = self.open(self.data[name])
        return self._opened[name]

    def open(self, spec: DataSpec) -> Source:
        """Any data set."""
        return open_source(spec)

    def generator(self, name: str) -> torch.Generator:
        """A fresh CPU generator of this job's stream `name`."""
        return stream(self.seed, name)

    def rng(self, name: str) -> np.random.Generator:
        """The same for numpy."""
        return np.random.default_rng(stream_seed(self.seed, name))

    def measure(self, name: str, value: float, unit: str = "") -> None:
        """Record a metric of the method's own, which its paper's config declares under `metrics`."""
        self.measured.append(Metric(name, value, unit))

    def fit(
        self,
        model: nn.Module,
        epoch_batches: EpochBatches,
        loss: Loss,
        *,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        stream: str = "train",
        schedule: ScheduleOptions | None = None,
        **more: Any,
    ) -> FitResult:
        """Train `model` in place with the shared loop.

        stream: names the generator of order and augmentation, and the checkpoint; two calls in one job take two.
        more: what `shared.training.loop.fit` takes besides.
        """
        result = fit(
            model,
            epoch_batches,
            loss,
            optimizer=optimizer,
            epochs=epochs,
            generator=self.generator(stream),
            schedule=Schedule(schedule, epochs) if schedule else None,
            checkpoint=self._checkpoint(stream),
            description=stream,
            **more,
        )
        self.fits.append(result)
        return result

    def _checkpoint(self, name: str) -> Checkpoint | None:
        if self.workdir is None:
            return None
        return Checkpoint(self.workdir / f"{name.replace(' ', '-')}.checkpoint.pt", key=f"{self.key}/{name}")
