"""Selective amnesia (Heng and Soh, NeurIPS 2023, arXiv:2305.10120): forgetting as continual learning."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import LatentImages, Pairs, RelabelBatch, noised_batch
from shared.diffusion.erasers.noising import simple_loss
from shared.diffusion.erasers.options import AdamOptions
from shared.diffusion.erasers.saliency import Mask
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import select, train_only
from shared.options import Count, NonNegative, Positive


class AmnesiaOptions(AdamOptions):
    """gamma: weight of the generated replay; lam: of the elastic penalty; fisher_samples: images that its Fisher
    information is estimated from. (UnlearnCanvas: 50 epochs.)"""

    trains: UnetSubset = "all"
    lr: Positive = 1e-5
    batch: Count = 4
    epochs: Count = 200
    gamma: NonNegative = 1.0
    lam: NonNegative = 50.0
    fisher_samples: Count = 1000


def amnesia_loss(unet: nn.Module, batch: RelabelBatch, fisher: Mask, start: Mask, options: AmnesiaOptions) -> Tensor:
    """L_simple(surrogates as the concept) + gamma L_simple(replay) + lam sum_i F_i (theta_i - theta0_i)^2."""
    loss = simple_loss(unet, batch.forget) + options.gamma * simple_loss(unet, batch.retain)
    parameters = dict(unet.named_parameters())
    terms = [(f * (parameters[name] - start[name]).square()).sum() for name, f in fisher.items()]
    return loss + options.lam * torch.stack(terms).sum()


def fisher_diagonal(
    unet: nn.Module, images: LatentImages, abar: Tensor, num_samples: int, generator: torch.Generator
) -> Mask:
    """F_i: mean over images, each at a random time, of the squared gradient of L_simple."""
    trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in trained.items()}
    for _ in range(num_samples):
        index = torch.randint(len(images), (1,), generator=generator)
        loss = simple_loss(unet, noised_batch(images, index, abar, generator))
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True, materialize_grads=True)
        for total, gradient in zip(fisher.values(), gradients, strict=True):
            total += gradient.square() / num_samples
    return fisher


def amnesia(unet: nn.Module, concept: Concept, options: AmnesiaOptions, context: EraseContext) -> Erased:
    """Teach the concept's prompts the surrogate images (`anchor`), replay generated images (`retained`)."""
    train_only(unet, options.trains)
    unet.eval()
    retained, images = concept.images("retained"), concept.images("anchor")
    surrogates = replace(images, states=context.encode(concept.prompts), anchors=images.states)
    fisher = fisher_diagonal(unet, retained, context.abar, options.fisher_samples, context.generator("fisher"))
    start = {name: p.detach().clone() for name, p in select(unet, options.trains).items()}
    result = context.fit(
        unet,
        lambda _, generator: Pairs(surrogates, retained, context.abar, options.batch, generator),
        lambda net, batch: amnesia_loss(net, batch, fisher, start, options),
        options,
        epochs=options.epochs,
    )
    return Erased(unet, fit=result)
