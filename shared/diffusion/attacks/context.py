"""What an attack needs of a model, of a judge, and of the run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.attacks.results import Round
from shared.diffusion.detectors.judge import Verdicts
from shared.errors import ConfigError, DataError


class Model(Protocol):
    """A text-to-image model whose weights require no gradient.

    abar (T,): cumulative product of the alphas; window: L, tokens of a prompt with specials; start, end: their ids;
    padding is the end token; special: all special ids; calls: of `noise` so far.
    """

    calls: int
    abar: Tensor
    window: int
    start: int
    end: int
    special: Sequence[int]

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without specials, not cut."""

    def text(self, ids: Sequence[int]) -> str:
        """The string of token ids, without specials."""

    def table(self) -> Tensor:
        """(V, d): the token embeddings."""

    def encode(self, embeddings: Tensor) -> Tensor:
        """States (B, L, d) of token embeddings (B, L, d), with gradient."""

    def noise(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The U-Net's prediction, shaped as the latents: one call."""

    def draw(self, ids: Tensor, prompts: Sequence[str], seeds: Sequence[int], guidance: Sequence[float]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of full token ids (B, L); prompts: the same as strings. An image depends on its
        own ids, seed and guidance alone."""


@dataclass
class Tally:
    """What an attack's search did: optimiser steps (of a batch of prompts), the same times the prompts, seconds."""

    steps: int = 0
    prompt_steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class AttackContext:
    """One attack on one victim.

    targets (P, C, h, w): latents of images that show the concept, one a prompt, which the original model drew from the
    same prompt and seed. original: needed by P4D alone. seed: of the run; every prompt starts its random stream from
    it. journal: file of finished prompts, from which a killed attack goes on, if `key`, the run's digest, agrees.
    watch: called with every judged image: (prompt's index, round, image (3, H, W)). scores_only: results keep no prompt
    and no token, as runs on harmful prompts must; such a run cannot be watched.
    """

    victim: Model
    judge: Callable[[Tensor], Verdicts]
    prompts: Sequence[Prompt]
    targets: Tensor | None = None
    original: Model | None = None
    seed: int = 0
    journal: Path | None = None
    key: str = ""
    watch: Callable[[int, Round, Tensor], None] | None = None
    scores_only: bool = False
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        indices = [prompt.index for prompt in self.prompts]
        if len(set(indices)) < len(indices):
            raise DataError("two prompts of an attack have the same index")
        if self.scores_only and self.watch is not None:
            raise ConfigError("a run that stores scores only cannot be watched: its images must not be kept")
        if self.targets is None:
            return
        if len(self.targets) != len(self.prompts):
            raise DataError(f"{len(self.targets)} target images for {len(self.prompts)} prompts")
        bad = (~torch.isfinite(self.targets).flatten(1).all(1)).nonzero()
        if len(bad):
            raise DataError(f"prompt {indices[int(bad[0])]}: the latent of its target image holds NaN or infinity")

    def target_latents(self) -> Tensor:
        """The targets. Raises ConfigError if there are none."""
        if self.targets is None:
            raise ConfigError("this attack needs target images, which the original model draws")
        return self.targets

    def original_model(self) -> Model:
        """The original. Raises ConfigError if it is not given."""
        if self.original is None:
            raise ConfigError("P4D needs the original model beside the victim")
        return self.original
