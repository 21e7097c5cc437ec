"""UNSIR: impair with error-maximising noise, then repair (Tarun et al. 2023).
Class-wise only."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.classification.context import Context, one_class
from shared.classification.finetune import cross_entropy
from shared.classification.options import AdamOptions
from shared.options import Count, NonNegative, Positive
from shared.training.device_images import DeviceImages, as_float


class UnsirOptions(AdamOptions):
    """The authors' class-wise script.

    lr, epochs, batch: of the impair step; repair_batch of the repair step, with the same lr and
    epochs. noise_lr, noise_steps, noise_penalty: the noise is `batch` images trained with Adam to
    maximise the loss of the forgotten class; the penalty is on the mean squared norm. noise_copies:
    times that batch enters the impair step. samples_per_class: retained images of each class that
    both steps see.
    """

    lr: Positive = 1e-4
    epochs: Count = 1
    batch: Count = 32
    repair_batch: Count = 128
    noise_lr: Positive = 0.1
    noise_steps: Count = 25
    noise_penalty: NonNegative = 0.1
    noise_copies: Count = 80
    samples_per_class: Count = 500


def unsir(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: UnsirOptions,
    context: Context,
) -> nn.Module:
    """Noise := argmax CE(noise, k) - penalty |noise|^2; impair on noise labelled k plus D_r's
    samples; repair on these."""
    forgotten = one_class(forget.labels, "unsir")
    noise = train_noise(model, forget, forgotten, options, context)
    samples = first_of_each_class(retain, options.samples_per_class)
    copies = noise.repeat(options.noise_copies, 1, 1, 1)
    noisy = DeviceImages(
        # Noise is no picture: it is neither bytes nor within [0, 1], and is not augmented.
        torch.cat([copies, as_float(samples.images)]),
        torch.cat([samples.labels.new_full((len(copies),), forgotten), samples.labels]),
        samples.num_classes,
    )
    train = partial(_train, model, options=options, context=context)
    train("impair", noisy, options.batch)
    train("repair", samples, options.repair_batch)
    return model


def _train(
    model: nn.Module,
    stream: str,
    data: DeviceImages,
    batch: int,
    options: UnsirOptions,
    context: Context,
) -> None:
    context.fit(
        model,
        lambda _, generator: data.batches(batch, generator),
        cross_entropy,
        options,
        stream=stream,
    )


def train_noise(
    model: nn.Module, forget: DeviceImages, forgotten: int, options: UnsirOptions, context: Context
) -> Tensor:
    """A batch of images (B, C, H, W) on which the model's loss for the forgotten class is as high
    as can be."""
    model.eval()
    shape = (options.batch, *forget.images.shape[1:])
    noise = torch.randn(shape, generator=context.generator("noise")).to(forget.device).requires_grad_(True)
    labels = torch.full((options.batch,), forgotten, device=forget.device)
    optimizer = torch.optim.Adam([noise], lr=options.noise_lr)
    for _ in range(options.noise_steps):
        loss = -F.cross_entropy(model(noise), labels) + options.noise_penalty * noise.square().sum((1, 2, 3)).mean()
        (noise.grad,) = torch.autograd.grad(loss, [noise])  # the model's own gradients stay untouched
        optimizer.step()
    context.count(options.noise_steps)
    return noise.detach()


def first_of_each_class(data: DeviceImages, num_each: int) -> DeviceImages:
    """The first `num_each` images of every class, in data-set order."""
    one_hot = F.one_hot(data.labels, data.num_classes)
    rank = (one_hot.cumsum(0) * one_hot).sum(1) - 1
    return data.subset((rank < num_each).nonzero()[:, 0])
