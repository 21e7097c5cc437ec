"""ScissorHands (Wu and Harandi, ECCV 2024, arXiv:2401.06187): forget by re-initialising the weights that know most."""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import LatentImages, Pairs, RelabelBatch, one_pass
from shared.diffusion.erasers.modules import frozen_copy
from shared.diffusion.erasers.noising import Noised, simple_loss
from shared.diffusion.erasers.options import RelabelOptions
from shared.diffusion.erasers.relabel import relabel_loss
from shared.diffusion.erasers.saliency import gradient_scores
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import select, train_only
from shared.options import Count, Fraction, NonNegative, Positive
from shared.training.ranking import largest
from shared.training.state import LoopState


class ScissorHandsOptions(RelabelOptions):
    """alpha: weight of the relabel loss; quantile: weights above this quantile of the saliency are re-initialised;
    score_batches: batches of the concept's images that the saliency is taken from.

    project_every: gradient projection at every so many steps, 0 for never (the release's default). Defaults are those
    of UnlearnCanvas.
    """

    trains: UnetSubset = "all"
    lr: Positive = 1e-5
    batch: Count = 4
    epochs: Count = 2
    alpha: NonNegative = 0.1
    quantile: Fraction = 0.99
    score_batches: Count = 1
    project_every: Annotated[int, Field(ge=0)] = 0


def scissorhands_loss(unet: nn.Module, batch: RelabelBatch, alpha: float) -> Tensor:
    """alpha L_relabel + L_simple(retain)."""
    return alpha * relabel_loss(unet, batch) + simple_loss(unet, batch.retain)


@torch.no_grad()
def reinitialise(unet: nn.Module, scores: dict[str, Tensor], quantile: float, generator: torch.Generator) -> int:
    """Draw anew the weights of cross-attention that are among the highest 1 - quantile of all scores: truncated normal
    with width 0.02, biases 0. Returns their number."""
    total = sum(score.numel() for score in scores.values())
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = largest(flat, total - int(quantile * total)).split([score.numel() for score in scores.values()])
    inside = select(unet, "cross_attention")
    num = 0
    for (name, score), part in zip(scores.items(), chosen, strict=True):
        if name not in inside:
            continue
        mask, parameter = part.view(score.shape), inside[name]
        fresh = torch.zeros(parameter.shape)
        if parameter.dim() > 1:
            nn.init.trunc_normal_(fresh, std=0.02, generator=generator)
        parameter.copy_(torch.where(mask, fresh.to(parameter), parameter))
        num += int(mask.sum())
    return num


class Projection:
    """Hook of the loop: a gradient that would undo the forgetting loses that part (GEM with one constraint).

    g := g - (g.h / h.h) h where g.h < 0, h the gradient of -L_simple on the concept's images at the pruned network.
    """

    def __init__(self, pruned: nn.Module, batches: Callable[[], Iterable[Noised]], num_images: int, every: int) -> None:
        self._pruned, self._batches, self._num_images, self._every = pruned, batches, num_images, every
        self.direction: list[Tensor] = []

    def after_backward(self, state: LoopState) -> None:
        """Project the gradients, at every `every`-th step."""
        if not self._every or state.step % self._every:
            return
        parameters = [p for p in state.model.parameters() if p.requires_grad]
        if not self.direction:
            self.direction = self._forget_gradient([n for n, p in state.model.named_parameters() if p.requires_grad])
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        inner = sum((g * h).sum() for g, h in zip(gradients, self.direction, strict=True))
        if inner >= 0:
            return
        length = sum(h.square().sum() for h in self.direction)
        for parameter, gradient, h in zip(parameters, gradients, self.direction, strict=True):
            parameter.grad = gradient - inner / length * h

    def _forget_gradient(self, names: list[str]) -> list[Tensor]:
        parameters = dict(self._pruned.named_parameters())
        chosen = {name: parameters[name].requires_grad_(True) for name in names}
        totals = [torch.zeros_like(p) for p in chosen.values()]
        for batch in self._batches():
            share = len(batch.latents) / self._num_images
            gradients = torch.autograd.grad(-share * simple_loss(self._pruned, batch), list(chosen.values()))
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient
        return totals


def scissorhands(unet: nn.Module, concept: Concept, options: ScissorHandsOptions, context: EraseContext) -> Erased:
    """Re-initialise once, then train on pairs."""
    forget, retained = concept.images("forget"), concept.images("retained")
    train_only(unet, "all")
    parameters = select(unet, "all")
    scores = gradient_scores(parameters, _first_losses(unet, forget, options, context))
    # SNIP: |gradient * weight|
    salient = {name: score * parameters[name].detach().abs() for name, score in scores.items()}
    reinitialise(unet, salient, options.quantile, context.generator("fresh weights"))
    train_only(unet, options.trains)
    projection = Projection(
        frozen_copy(unet) if options.project_every else unet,
        lambda: one_pass(forget, context.abar, options.batch, context.generator("projection"), shuffle=False),
        len(forget),
        options.project_every,
    )
    result = context.fit(
        unet,
        lambda _, generator: Pairs(forget, retained, context.abar, options.batch, generator, anchors=options.anchors),
        lambda net, batch: scissorhands_loss(net, batch, options.alpha),
        options,
        epochs=options.epochs,
        after_backward=projection.after_backward,
    )
    return Erased(unet, fit=result)


def _first_losses(
    unet: nn.Module, forget: LatentImages, options: ScissorHandsOptions, context: EraseContext
) -> Iterator[Tensor]:
    batches = one_pass(forget, context.abar, options.batch, context.generator("saliency"), shuffle=True)
    for _, batch in zip(range(options.score_batches), batches, strict=False):
        yield simple_loss(unet, batch)
