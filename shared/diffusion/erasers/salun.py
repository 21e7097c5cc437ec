"""SalUn (Fan et al., ICLR 2024, arXiv:2310.12508) on a text-to-image model: relabel, under the saliency mask.

Class-wise forgetting gives each class's prompt the next class's as anchor; removing a concept gives its prompt a safe
counterpart, whose images are the retained ones.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.images import Pairs, RelabelBatch, one_pass
from shared.diffusion.erasers.noising import Noised, predict, simple_loss
from shared.diffusion.erasers.options import RelabelOptions
from shared.diffusion.erasers.relabel import relabel_loss
from shared.diffusion.erasers.saliency import Mask, gradient_scores, top_mask
from shared.diffusion.options import UnetSubset
from shared.diffusion.subsets import select, train_only
from shared.options import Count, Fraction, NonNegative, Positive


class SalunOptions(RelabelOptions):
    """alpha: weight of the retain term. keep: q, the share of all weights that may move; mask_guidance: w of the guided
    prediction in the mask's loss; mask_batch: images of one gradient of it.

    resample_posterior: the target's noisy image stands on a latent of its own from the autoencoder's posterior, with
    the same noise and time, as in the released code; needs images with a posterior width.
    shuffle_forget: the released loader of the forgotten images keeps their order.
    sd_first_batch_bug: the code before February 2026 started its loaders anew at every step, so that the forget batch
    is always the first images. It made the published numbers.
    accumulate: SalUn adds the batches' gradients with their sign; "absolute" adds their absolute values.
    mask_unused: the code of UnlearnCanvas computes the mask but never applies it; True only to repeat its numbers.
    """

    trains: UnetSubset = "all"
    lr: Positive = 1e-5
    batch: Count = 8
    epochs: Count = 5
    resample_posterior: bool = False
    shuffle_forget: bool = True
    sd_first_batch_bug: bool = False
    alpha: NonNegative = 0.5
    keep: Fraction = 0.5
    mask_guidance: NonNegative = 7.5
    mask_batch: Count = 8
    accumulate: Literal["signed", "absolute"] = "signed"
    mask_unused: bool = False


def salun_loss(unet: nn.Module, batch: RelabelBatch, alpha: float) -> Tensor:
    """MSE(eps(x_t^f, c_f), stopgrad eps(x_t^f, c_a)) + alpha L_simple(retain)."""
    return relabel_loss(unet, batch) + alpha * simple_loss(unet, batch.retain)


def guided_loss(unet: nn.Module, batch: Noised, null: Tensor, guidance: float) -> Tensor:
    """-MSE(e, (1 + w) eps(x_t, c) - w eps(x_t, null)): its gradient gives the mask. null (1, L, d)."""
    size = len(batch.latents)
    states = torch.cat([batch.states, null.expand(size, -1, -1)])
    both = predict(unet, batch.latents.repeat(2, 1, 1, 1), batch.timesteps.repeat(2), states)
    with_prompt, without = both.chunk(2)
    return -F.mse_loss((1 + guidance) * with_prompt - guidance * without, batch.noise)


def saliency_mask(unet: nn.Module, concept: Concept, options: SalunOptions, context: EraseContext) -> Mask:
    """The mask over all of the U-Net's weights: one pass over the concept's images, in eval mode."""
    train_only(unet, "all")
    unet.eval()
    null, generator = context.encode([""]), context.generator("saliency mask")

    def losses() -> Iterator[Tensor]:
        images = one_pass(concept.images("forget"), context.abar, options.mask_batch, generator, shuffle=False)
        for batch in images:
            yield guided_loss(unet, batch, null, options.mask_guidance)

    return top_mask(gradient_scores(select(unet, "all"), losses(), accumulate=options.accumulate), options.keep)


def salun(unet: nn.Module, concept: Concept, options: SalunOptions, context: EraseContext) -> Erased:
    """Train on pairs of forget and retain batches; only weights of the mask (and of `trains`) move."""
    mask = None if options.mask_unused else saliency_mask(unet, concept, options, context)
    train_only(unet, options.trains)
    forget, retained = concept.images("forget"), concept.images("retained")
    result = context.fit(
        unet,
        lambda _, generator: Pairs(
            forget,
            retained,
            context.abar,
            options.batch,
            generator,
            anchors=options.anchors,
            shuffle_forget=options.shuffle_forget,
            resample_posterior=options.resample_posterior,
            first_batch_bug=options.sd_first_batch_bug,
        ),
        lambda net, batch: salun_loss(net, batch, options.alpha),
        options,
        epochs=options.epochs,
        mask={name: mask[name] for name in select(unet, options.trains)} if mask is not None else None,
    )
    return Erased(unet, fit=result)
