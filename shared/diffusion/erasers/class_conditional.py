"""SalUn (arXiv:2310.12508) and gradient ascent on a class-conditional DDPM.

The model is called as model(x_t (B, C, H, W), t (B,), labels (B,)) -> noise; the label `null` (the number of classes)
stands for no condition.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.classes.options import ClassErasingOptions
from shared.diffusion.erasers.noising import draw_normal, noised
from shared.diffusion.erasers.saliency import Mask, gradient_scores, top_mask
from shared.diffusion.train import antithetic_times
from shared.errors import DataError
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import Batch, DeviceImages
from shared.training.loop import FitResult, fit
from shared.training.mask import WeightMask
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions


class NoisedImages(NamedTuple):
    """x_t (B, C, H, W), timesteps (B,), noise, labels (B,): the condition, `null` where it was dropped."""

    images: Tensor
    timesteps: Tensor
    noise: Tensor
    labels: Tensor


class ErasingBatch(NamedTuple):
    """forget, retain: noised images; other (B,): labels that the forget images are to be predicted as."""

    forget: NoisedImages
    other: Tensor
    retain: NoisedImages


def sum_loss(model: nn.Module, batch: NoisedImages) -> Tensor:
    """Squared error of the noise, summed over an image's pixels, mean over images."""
    error = batch.noise - model(batch.images, batch.timesteps, batch.labels)
    return error.square().flatten(1).sum(1).mean()


def relabel_class_loss(model: nn.Module, batch: NoisedImages, other: Tensor) -> Tensor:
    """MSE(eps(x_t | c), stopgrad eps(x_t | c')), a mean over pixels; both calls in the model's present mode, so that
    dropout differs between them."""
    with torch.no_grad():
        target = model(batch.images, batch.timesteps, other)
    return F.mse_loss(model(batch.images, batch.timesteps, batch.labels), target)


def erasing_loss(model: nn.Module, batch: ErasingBatch, options: ClassErasingOptions) -> Tensor:
    """Forget term + alpha sum_loss(retain)."""
    if options.forget_term == "relabel":
        forget = relabel_class_loss(model, batch.forget, batch.other)
    else:
        forget = -sum_loss(model, batch.forget)
    return forget + options.alpha * sum_loss(model, batch.retain)


def noised_images(batch: Batch, abar: Tensor, generator: torch.Generator) -> NoisedImages:
    """Images, scaled from [0, 1] to [-1, 1], with fresh noise at antithetic times."""
    clean = 2 * batch.images - 1
    timesteps = antithetic_times(len(batch.images), len(abar), generator).to(batch.images.device)
    noise = draw_normal(clean.shape, generator, clean)
    return NoisedImages(noised(clean, noise, timesteps, abar), timesteps, noise, batch.labels)


def drop_condition(labels: Tensor, null: int, share: float, generator: torch.Generator) -> Tensor:
    """Labels with a random `share` of them replaced by `null`."""
    dropped = torch.rand(labels.shape, generator=generator) < share
    return labels.masked_fill(dropped.to(labels.device), null)


class ErasingBatches(Iterator[ErasingBatch]):
    """`iterations` batches from two endless, shuffled streams; the other label is the next class."""

    def __init__(
        self,
        forget: DeviceImages,
        retain: DeviceImages,
        abar: Tensor,
        options: ClassErasingOptions,
        generator: torch.Generator,
    ) -> None:
        self._abar, self._num_classes, self._options, self._generator = abar, forget.num_classes, options, generator
        self._forget, self._retain = (_endless(x, options.batch, generator) for x in (forget, retain))
        self._left = options.iterations

    def __len__(self) -> int:
        return self._options.iterations

    def __next__(self) -> ErasingBatch:
        if not self._left:
            raise StopIteration
        self._left -= 1
        forget = noised_images(next(self._forget), self._abar, self._generator)
        retain = noised_images(next(self._retain), self._abar, self._generator)
        other = self._dropped((forget.labels + 1) % self._num_classes)
        return ErasingBatch(
            forget._replace(labels=self._dropped(forget.labels)),
            other,
            retain._replace(labels=self._dropped(retain.labels)),
        )

    def _dropped(self, labels: Tensor) -> Tensor:
        return drop_condition(labels, self._num_classes, self._options.condition_drop, self._generator)


def _endless(images: DeviceImages, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Whole batches only: forget and retain batches must be of one size."""
    if len(images) < size:
        raise DataError(f"{len(images)} images do not fill a batch of {size}; set a smaller batch")
    while True:
        yield from (batch for batch in images.batches(size, generator) if len(batch.labels) == size)


def guided_sum_loss(model: nn.Module, batch: NoisedImages, null: int, guidance: float) -> Tensor:
    """sum over pixels of (e - ((1 + w) eps(x_t | c) - w eps(x_t | none)))^2, mean over images."""
    labels = torch.cat([batch.labels, torch.full_like(batch.labels, null)])
    both = model(batch.images.repeat(2, 1, 1, 1), batch.timesteps.repeat(2), labels)
    with_class, without = both.chunk(2)
    return (batch.noise - (1 + guidance) * with_class + guidance * without).square().flatten(1).sum(1).mean()


def class_saliency_mask(
    model: nn.Module, forget: DeviceImages, abar: Tensor, options: ClassErasingOptions, generator: torch.Generator
) -> Mask:
    """One pass over the class's images in eval mode: each batch's gradient clipped to norm 1, summed with its sign."""
    model.eval()

    def losses() -> Iterable[Tensor]:
        for batch in forget.batches(options.mask_batch, generator):
            noisy = noised_images(batch, abar, generator)
            yield guided_sum_loss(model, noisy, forget.num_classes, options.mask_guidance)

    scores = gradient_scores(dict(model.named_parameters()), losses(), clip=options.max_grad_norm)
    return top_mask(scores, options.keep)


def erase_class(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    abar: Tensor,
    options: ClassErasingOptions,
    *,
    generator: Callable[[str], torch.Generator],
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Erase the class of `forget` in place: mask first, then steps of Adam on clipped, then masked gradients.

    The weights are the raw ones, not their average; all are trained. generator: (name) -> a fresh CPU generator of this
    run's stream.
    """
    model.requires_grad_(True)
    mask = None
    if options.keep < 1:
        mask = class_saliency_mask(model, forget, abar, options, generator("saliency mask"))
    masked = WeightMask(model, mask) if mask is not None else None
    return fit(
        model,
        lambda _, stream: ErasingBatches(forget, retain, abar, options, stream),
        lambda net, batch: erasing_loss(net, batch, options),
        optimizer=make_optimizer(model.parameters(), OptimizerOptions(kind="adam", lr=options.lr)),
        epochs=1,
        generator=generator("erase class"),
        max_grad_norm=options.max_grad_norm,
        after_backward=masked.after_backward if masked else None,
        after_step=masked.after_step if masked else None,
        stateful={"mask": masked} if masked else None,
        checkpoint=checkpoint,
        description="erase class",
    )
