"""EraseDiff (Wu et al., 2024, arXiv:2401.05779): two levels; the inner one sets what the outer is measured from."""

from typing import Any

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import Pairs, RelabelBatch
from shared.diffusion.erasers.noising import simple_loss
from shared.diffusion.erasers.options import RelabelOptions
from shared.diffusion.erasers.relabel import relabel_loss
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import train_only
from shared.options import Count, NonNegative, Positive
from shared.training.state import LoopState


class EraseDiffOptions(RelabelOptions):
    """inner: K, how often an epoch repeats [inner pass, reset, outer pass]; alpha: weight of the relabel loss in the
    outer pass. Defaults are those of UnlearnCanvas."""

    trains: UnetSubset = "cross_attention"
    lr: Positive = 5e-5
    batch: Count = 4
    epochs: Count = 5
    inner: Count = 2
    alpha: NonNegative = 0.1


class Levels:
    """Where the training stands between its levels; hook of the loop, and part of its checkpoint.

    The released code has every outer pass start from the weights at the epoch's start, so only the last of K survives
    (the optimiser's moments carry over); and the inner value is a number without gradient.
    """

    def __init__(self, inner: int) -> None:
        self._inner = inner
        self._anchor: dict[str, Tensor] = {}
        self.outer = False
        self.inner_loss = torch.zeros(())

    def on_phase_start(self, state: LoopState) -> None:
        """Phases alternate: inner, outer; 2 K of them are an epoch."""
        trained = {name: p for name, p in state.model.named_parameters() if p.requires_grad}
        self.outer = state.epoch % 2 == 1
        if state.epoch % (2 * self._inner) == 0:
            self._anchor = {name: p.detach().clone() for name, p in trained.items()}
        if self.outer:
            mean = state.history[-1]["loss"]
            self.inner_loss = torch.tensor(float("nan") if mean is None else mean)
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(self._anchor[name])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"anchor": self._anchor, "outer": self.outer, "inner_loss": self.inner_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._anchor, self.outer, self.inner_loss = state["anchor"], state["outer"], state["inner_loss"]


def erasediff_loss(unet: nn.Module, batch: RelabelBatch, levels: Levels, alpha: float) -> Tensor:
    """Inner: L_relabel. Outer: L_simple(retain) + alpha (L_relabel - L_in), L_in the mean of the inner pass."""
    if not levels.outer:
        return relabel_loss(unet, batch)
    difference = relabel_loss(unet, batch) - levels.inner_loss.to(batch.anchor)
    return simple_loss(unet, batch.retain) + alpha * difference


def erasediff(unet: nn.Module, concept: Concept, options: EraseDiffOptions, context: EraseContext) -> Erased:
    """Train on pairs; each of the 2 K phases of an epoch is one pass over the concept's images."""
    train_only(unet, options.trains)
    levels = Levels(options.inner)
    forget, retained = concept.images("forget"), concept.images("retained")
    result = context.fit(
        unet,
        lambda _, generator: Pairs(forget, retained, context.abar, options.batch, generator, anchors=options.anchors),
        lambda net, batch: erasediff_loss(net, batch, levels, options.alpha),
        options,
        epochs=2 * options.inner * options.epochs,
        on_epoch_start=levels.on_phase_start,
        stateful={"levels": levels},
    )
    return Erased(unet, fit=result)
