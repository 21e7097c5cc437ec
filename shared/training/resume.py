"""Saving and restoring a running training: a killed run ends in the weights of one left alone."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from shared.training.checkpoint import Checkpoint, capture_random_state, restore_random_state
from shared.training.state import LoopState, Stateful


class Resume:
    """Saves and restores a `LoopState`. Without a checkpoint it only keeps the time.

    Two sets of random states are saved: those from which the epoch's batches were made, to make the
    same batches again, and those of the checkpoint's own step, to continue from.
    """

    def __init__(self, checkpoint: Checkpoint | None, stateful: Mapping[str, Stateful]) -> None:
        self._checkpoint, self._stateful = checkpoint, stateful
        self._started = self._saved = time.monotonic()
        self._seconds_before = 0.0
        self._at_epoch_start: dict[str, Any] = {}
        self._at_step: dict[str, Any] = {}

    def elapsed(self) -> float:
        """Wall seconds of the run, with those before a kill (as of the checkpoint)."""
        return self._seconds_before + time.monotonic() - self._started

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self._checkpoint is not None and time.monotonic() - self._saved >= self._checkpoint.seconds

    def mark_epoch(self, generator: torch.Generator) -> None:
        """Remember the random states from which the epoch's batches are about to be made."""
        if self._checkpoint is not None:
            self._at_epoch_start = _random_states(generator)

    def skip_used(self, iterator: Any, state: LoopState) -> None:
        """Pass over the batches used before the checkpoint; set the random states of its step."""
        if state.step_in_epoch == 0:
            return
        if hasattr(iterator, "skip"):
            iterator.skip(state.step_in_epoch)
        else:
            for _ in range(state.step_in_epoch):
                next(iterator)
        _set_random_states(self._at_step, state.generator)

    def restore(self, state: LoopState) -> None:
        """Continue from the last checkpoint, if there is one of this recipe."""
        saved = self._checkpoint.load() if self._checkpoint is not None else None
        if saved is None:
            return
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        for name, item in self._stateful.items():
            item.load_state_dict(saved["stateful"][name])
        for module, training in zip(state.model.modules(), saved["training"], strict=True):
            module.training = training
        state.epoch, state.step, state.step_in_epoch = (
            saved["epoch"],
            saved["step"],
            saved["step_in_epoch"],
        )
        state.steps_per_epoch, state.history = saved["steps_per_epoch"], saved["history"]
        state.loss_sum = saved["loss_sum"].to(next(state.model.parameters()).device)
        self._seconds_before = saved["seconds"]
        self._at_epoch_start, self._at_step = saved["at_epoch_start"], saved["at_step"]
        _set_random_states(self._at_epoch_start if state.step_in_epoch else self._at_step, state.generator)

    def save(self, state: LoopState) -> None:
        """Write the state, after a finished step."""
        if self._checkpoint is None:
            return
        self._checkpoint.save(
            {
                "model": state.model.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "stateful": {name: item.state_dict() for name, item in self._stateful.items()},
                "training": [module.training for module in state.model.modules()],
                "epoch": state.epoch,
                "step": state.step,
                "step_in_epoch": state.step_in_epoch,
                "steps_per_epoch": state.steps_per_epoch,
                "history": state.history,
                "loss_sum": torch.as_tensor(state.loss_sum),
                "seconds": self.elapsed(),
                "at_epoch_start": self._at_epoch_start,
                "at_step": _random_states(state.generator),
            }
        )
        self._saved = time.monotonic()


def _random_states(generator: torch.Generator) -> dict[str, Any]:
    return {"global": capture_random_state(), "generator": generator.get_state()}


def _set_random_states(states: dict[str, Any], generator: torch.Generator) -> None:
    restore_random_state(states["global"])
    generator.set_state(states["generator"])
