"""Unlearning by distillation from teachers: SCRUB and Bad Teacher."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.classification.batches import Marked, marked
from shared.classification.context import Context
from shared.classification.options import AdamOptions
from shared.options import Count, Fraction, NonNegative, Positive
from shared.training.device_images import DeviceImages
from shared.training.options import ScheduleOptions


class ScrubOptions(AdamOptions):
    """SCRUB's small-scale setting (Kurmanji et al. 2023, their code). The worst_case paper's code
    has temperature 4, gamma 0.99, alpha 0.001.

    max_epochs: epochs (the first ones) that begin with a pass over D_f; decay_epochs: where lr
    falls to a tenth.
    """

    lr: Positive = 5e-4
    epochs: Count = 10
    weight_decay: NonNegative = 5e-4
    max_epochs: Count = 3
    temperature: Positive = 2.0
    gamma: NonNegative = 1.0
    alpha: NonNegative = 0.5
    decay_epochs: list[Count] = [5, 8, 9]


class BadTeacherOptions(AdamOptions):
    """Chundawat et al. 2023. retain_fraction: share of D_r that takes part (0.3 recalled)."""

    lr: Positive = 1e-4
    epochs: Count = 1
    temperature: Positive = 1.0
    retain_fraction: Fraction = 0.3


def scrub(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: ScrubOptions,
    context: Context,
) -> nn.Module:
    """max over D_f: KD(teacher, student); min over D_r: gamma CE + alpha KD; the teacher is the
    original, frozen."""
    teacher = frozen_copy(model)

    def loss(student: nn.Module, batch: Marked) -> Tensor:
        logits = student(batch.images)
        with torch.no_grad():
            target = teacher(batch.images)
        kept = options.gamma * F.cross_entropy(logits, batch.labels, reduction="none")
        distance = distillation(logits, target, options.temperature)
        return torch.where(batch.forget, -distance, kept + options.alpha * distance).mean()

    context.fit(
        model,
        lambda epoch, generator: _phases(epoch, forget, retain, options, generator),
        loss,
        options,
        schedule=ScheduleOptions(kind="multistep", milestones=tuple(options.decay_epochs))
        if options.decay_epochs
        else None,
    )
    return model


def _phases(
    epoch: int,
    forget: DeviceImages,
    retain: DeviceImages,
    options: ScrubOptions,
    generator: torch.Generator,
) -> Iterator[Marked]:
    if epoch < options.max_epochs:
        for batch in forget.batches(options.batch, generator):
            yield marked(batch, torch.ones_like(batch.labels, dtype=torch.bool))
    for batch in retain.batches(options.batch, generator):
        yield marked(batch, torch.zeros_like(batch.labels, dtype=torch.bool))


def bad_teacher(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: BadTeacherOptions,
    context: Context,
) -> nn.Module:
    """KL to an untrained network's outputs on D_f, to the original's on a sample of D_r. Divided by
    the number of samples *and* classes, as the released `F.kl_div` does by default."""
    good, bad = frozen_copy(model), context.fresh_model("bad teacher").eval()
    sample = torch.randperm(len(retain), generator=context.generator("retain sample"))
    chosen = retain.subset(sample[: int(options.retain_fraction * len(retain))])
    data, num_forget = forget.followed_by(chosen), len(forget)

    def batches(_: int, generator: torch.Generator) -> Iterator[Marked]:
        for batch in data.batches(options.batch, generator):
            yield marked(batch, batch.indices < num_forget)

    def loss(student: nn.Module, batch: Marked) -> Tensor:
        with torch.no_grad():
            teacher = torch.where(batch.forget[:, None], bad(batch.images), good(batch.images))
        target = F.softmax(teacher.float() / options.temperature, dim=1)
        # Not reduction="mean": torch is about to change what that divides by.
        log_p = F.log_softmax(student(batch.images).float() / options.temperature, dim=1)
        return F.kl_div(log_p, target, reduction="none").mean()

    context.fit(model, batches, loss, options)
    return model


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) at a temperature, times its square, for each sample (B,); logits (B,
    C)."""
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    target = F.softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_p, target, reduction="none").sum(1) * temperature**2


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now, in eval mode and without gradients: a teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)
