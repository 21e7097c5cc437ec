"""Keeping the best weights of a run: selection on a validation score."""

from typing import Any

from torch import Tensor, nn


class BestWeights:
    """Weights and buffers with the highest score so far, the earliest of equals.

    A run that may be resumed names it under `stateful` of `fit`.
    """

    def __init__(self) -> None:
        self.score: float | None = None
        self._weights: dict[str, Tensor] = {}

    def offer(self, model: nn.Module, score: float) -> bool:
        """Keep a copy of the model's weights if `score` is the highest yet; a NaN never is."""
        if score != score or (self.score is not None and score <= self.score):
            return False
        self.score = score
        self._weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return True

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into the model; without any offer the model stays as it is."""
        if self._weights:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"score": self.score, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.score, self._weights = state["score"], state["weights"]
