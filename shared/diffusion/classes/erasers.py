"""Erasers of class-conditional models: `erase(unet, concept, options, context) -> Erased`, as for text-to-image models.

A class's label takes the place of its prompt, and the label of no class that of the empty prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from shared.diffusion.classes.options import ClassErasingOptions, ClassEsdOptions
from shared.diffusion.erasers.class_conditional import erase_class
from shared.diffusion.erasers.context import EraseContext, Erased
from shared.diffusion.erasers.draws import StudentDraws
from shared.diffusion.erasers.esd import esd_loss
from shared.diffusion.erasers.modules import frozen_copy
from shared.diffusion.train import alphas_cumprod
from shared.diffusion.zoo.class_diffusion import ClassDiffusion
from shared.errors import ConfigError
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import DeviceImages


@dataclass(frozen=True)
class ForgottenClass:
    """What is erased: the class `label`. forget: its training images; retain: those of all other classes."""

    label: int
    forget: DeviceImages
    retain: DeviceImages


class ByLabelStates(nn.Module):
    """A class-conditional U-Net called as diffusers' conditional U-Nets are: the "states" (B, 1, 1) of a prompt are a
    label, in 32 bits, which hold it exactly; the erasers of text-to-image models so serve both."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        """Predicted noise as `.sample`."""
        return SimpleNamespace(sample=self.unet(sample, timestep, encoder_hidden_states[:, 0, 0].long()))


def class_context(
    model: ClassDiffusion,
    generator: Callable[[str], torch.Generator],
    workdir: Path | None = None,
    key: str = "",
) -> EraseContext:
    """The context of erasing a class from `model`. Its "prompts" are labels in digits; the empty one is no class."""
    config = model.unet.config

    def tokens(text: str) -> list[int]:
        return [int(text) if text else config.num_classes]

    def encode(labels: Sequence[str]) -> Tensor:
        ids = [tokens(label)[0] for label in labels]
        return torch.tensor(ids, dtype=torch.float32, device=model.null.device)[:, None, None]

    shape = (config.in_channels, config.sample_size, config.sample_size)
    return EraseContext(alphas_cumprod(model.schedule), shape, encode, tokens, generator, workdir, key)


def class_relabel(
    unet: nn.Module, concept: ForgottenClass, options: ClassErasingOptions, context: EraseContext
) -> Erased:
    """SalUn on a class-conditional DDPM; without a mask (keep 1) random labelling, with `ascend` gradient ascent."""
    name = "erase-class.checkpoint.pt"
    result = erase_class(
        unet,
        concept.forget,
        concept.retain,
        context.abar,
        options,
        generator=context.generator,
        checkpoint=Checkpoint(context.workdir / name, f"{context.key}/erase class") if context.workdir else None,
    )
    return Erased(unet, fit=result)


def class_esd(unet: nn.Module, concept: ForgottenClass, options: ClassEsdOptions, context: EraseContext) -> Erased:
    """ESD (arXiv:2303.07345) with the class's label as the prompt: trained on the student's half-finished drawings of
    the class to predict eps0(x, none) - eta (eps0(x, c) - eps0(x, none))."""
    if options.draw_steps > len(context.abar):
        raise ConfigError(f"draw_steps: {options.draw_steps} steps, but the model has {len(context.abar)} noise levels")
    unet.requires_grad_(True)
    student = ByLabelStates(unet)
    frozen = frozen_copy(student)
    label, null = context.encode([str(concept.label)]), context.encode([""])
    result = context.fit(
        student,
        lambda _, generator: StudentDraws(student, label, null, context.abar, context.shape, options, generator),
        lambda net, batch: esd_loss(net, frozen, batch, options.eta),
        options,
    )
    return Erased(unet, fit=result)
