"""Safe latent diffusion (Schramowski et al., CVPR 2023, arXiv:2211.05105): guidance away from a safety prompt."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.options import EraserOptions
from shared.diffusion.sample import ClassifierFree, Step


class SldOptions(EraserOptions):
    """strength: a row of STRENGTHS.

    warmup_on_timestep: the attack's released code compares the warm-up with the *time* (999 .. 0) instead of the
    step's index, so that the correction is on from the start and off in the last few steps.
    """

    strength: Literal["weak", "medium", "strong", "max"] = "medium"
    warmup_on_timestep: bool = False

    @property
    def in_weights(self) -> bool:
        """It is all in the guidance."""
        return False


class Strength(NamedTuple):
    """scale: lambda; threshold: delta; momentum: m, its weight; beta: how slowly it changes; warmup: first steps
    without correction."""

    scale: float
    threshold: float
    momentum: float
    beta: float
    warmup: int


STRENGTHS = {
    "weak": Strength(200.0, 0.0, 0.0, 0.0, 15),
    "medium": Strength(1000.0, 0.01, 0.3, 0.4, 10),
    "strong": Strength(2000.0, 0.025, 0.5, 0.7, 7),
    "max": Strength(5000.0, 1.0, 0.5, 0.7, 0),
}


def safety_guidance(
    null: Tensor, prompt: Tensor, safety: Tensor, momentum: Tensor, strength: Strength
) -> tuple[Tensor, Tensor]:
    """Equations 5 to 8: the correction g_s and the new momentum v, from three predictions and the momentum before.

    mu = min(lambda |p - s|, 1) where p - s < delta, else 0; g_s = mu (s - u) + m v; v := beta v + (1 - beta) g_s.
    """
    difference = prompt - safety
    scale = (strength.scale * difference.abs()).clamp(max=1.0)
    scale = torch.where(difference >= strength.threshold, 0.0, scale)
    correction = scale * (safety - null) + strength.momentum * momentum
    return correction, strength.beta * momentum + (1 - strength.beta) * correction


class SafetyGuidance:
    """eps = u + guidance ((p - u) - g_s), g_s left out until the warm-up is over, while its momentum already grows.

    guidance: the plain one, u + scale (p - u); safety (L, d): states of the safety prompt.
    """

    def __init__(
        self, guidance: ClassifierFree, safety: Tensor, strength: Strength, warmup_on_timestep: bool = False
    ) -> None:
        self._plain, self._safety, self._strength = guidance, safety, strength
        self._on_timestep = warmup_on_timestep
        self._momentum: Tensor | None = None

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """(3, N, L, d): the empty prompt, the prompts, the safety prompt."""
        return torch.cat([self._plain.branches(null, conditions), self._safety.expand_as(conditions)[None]])

    def start(self, rows: slice) -> "SafetyGuidance":
        """Without momentum."""
        return SafetyGuidance(self._plain.start(rows), self._safety, self._strength, self._on_timestep)

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Predictions (3, B, C, h, w) to one."""
        null, prompt, safety = predictions
        momentum = torch.zeros_like(null) if self._momentum is None else self._momentum
        correction, self._momentum = safety_guidance(null, prompt, safety, momentum, self._strength)
        position = step.timestep if self._on_timestep else step.index
        corrected = prompt - correction if position >= self._strength.warmup else prompt
        return self._plain(torch.stack([null, corrected]), step)


def sld(unet: nn.Module, concept: Concept, options: SldOptions, context: EraseContext) -> Erased:
    """No training: draw away from the concept's name."""
    safety = context.encode([concept.name])[0]

    def guidance(prompts: Sequence[str], scale: float | Sequence[float]) -> SafetyGuidance:
        strength = STRENGTHS[options.strength]
        return SafetyGuidance(ClassifierFree(scale), safety, strength, options.warmup_on_timestep)

    return Erased(unet, guidance)
