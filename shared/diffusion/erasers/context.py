"""What an eraser gets besides the U-Net, and what it leaves.

An eraser is a function `erase(unet, concept, options, context) -> Erased`: it changes `unet` in place, or wraps how
images are drawn. Its equation is a function of its own in the same file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.images import LatentImages
from shared.diffusion.erasers.options import AdamOptions
from shared.diffusion.sample import ClassifierFree, Guidance
from shared.errors import ConfigError
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult, Hook, fit
from shared.training.mask import WeightMask
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions
from shared.training.schedule import Schedule
from shared.training.state import Stateful

if TYPE_CHECKING:
    from shared.diffusion.text_to_image import TextToImage

# (the N prompts, a scale or one for each) -> the guidance of their images
GuidanceFor = Callable[[Sequence[str], float | Sequence[float]], Guidance]
Images = LatentImages | Callable[[], LatentImages]
BatchesOfEpoch = Callable[[int, torch.Generator], Iterable[Any]]


@dataclass(frozen=True)
class Concept:
    """What is erased.

    name: its words alone ("circle"); prompts: texts that name it; anchors: what each of them becomes, one a prompt;
    retain: texts to keep. Images, where an eraser learns from them: `forget` shows the concept (prompts and anchors as
    here), `anchor` what the anchors describe, `retained` everything else; a function makes them when they are first
    asked for.
    """

    name: str
    prompts: Sequence[str]
    anchors: Sequence[str] = ()
    retain: Sequence[str] = ()
    forget: Images | None = None
    anchor: Images | None = None
    retained: Images | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ConfigError(f"concept '{self.name}': no prompt names it")
        if self.anchors and len(self.anchors) != len(self.prompts):
            count = f"{len(self.anchors)} anchors for {len(self.prompts)} prompts"
            raise ConfigError(f"concept '{self.name}': {count}; each prompt needs its own")

    def images(self, which: str) -> LatentImages:
        """The images `forget`, `anchor` or `retained`. Raises ConfigError if the task gives none."""
        found: Images | None = getattr(self, which)
        if found is None:
            raise ConfigError(f"concept '{self.name}': this eraser needs images, '{which}'; the task makes none")
        return found if isinstance(found, LatentImages) else found()

    def anchor_prompts(self) -> Sequence[str]:
        """The anchors. Raises ConfigError if there are none."""
        if not self.anchors:
            raise ConfigError(f"concept '{self.name}': this eraser needs anchor prompts")
        return self.anchors


def plain_guidance(prompts: Sequence[str], scale: float | Sequence[float]) -> Guidance:
    """Classifier-free guidance."""
    return ClassifierFree(scale)


@dataclass(frozen=True)
class Erased:
    """What an eraser leaves.

    unet: with changed weights, or further modules; guidance: (prompts, scales) -> how images of these prompts are drawn
    with it; fit: numbers of the training.
    """

    unet: nn.Module
    guidance: GuidanceFor = plain_guidance
    fit: FitResult | None = None


@dataclass(frozen=True)
class TextAccess:
    """The text encoder below its words. ids: prompts -> token ids (P, L); table (V, d): the token embeddings; states:
    (ids, embeddings (B, L, d)) -> states (B, L, d), with gradient to the embeddings."""

    ids: Callable[[Sequence[str]], Tensor]
    table: Tensor
    states: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EraseContext:
    """One run of one eraser.

    abar (T,): cumulative product of the alphas; shape: (C, h, w) of a latent; encode: prompts -> states (P, L, d), on
    the device, without gradient; tokens: a text -> its token ids, without specials; generator: (name) -> a fresh CPU
    generator of this run's stream; workdir, key: where training keeps its checkpoints (None: nowhere), and the digest
    of the run they belong to. text: for erasers that look below words.
    """

    abar: Tensor
    shape: tuple[int, ...]
    encode: Callable[[Sequence[str]], Tensor]
    tokens: Callable[[str], list[int]]
    generator: Callable[[str], torch.Generator]
    workdir: Path | None = None
    key: str = ""
    text: TextAccess | None = None

    def text_access(self) -> TextAccess:
        """The token embeddings. Raises ConfigError if the run gives none."""
        if self.text is None:
            raise ConfigError("this eraser trains token embeddings, but the run gives no access to the text encoder")
        return self.text

    def fit(
        self,
        module: nn.Module,
        batches: BatchesOfEpoch,
        loss: Callable[[nn.Module, Any], Tensor],
        options: AdamOptions,
        *,
        epochs: int = 1,
        stream: str = "erase",
        schedule: Schedule | None = None,
        mask: Mapping[str, Tensor] | None = None,
        on_epoch_start: Hook | None = None,
        after_backward: Hook | None = None,
        max_grad_norm: float | None = None,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> FitResult:
        """Train the parameters of `module` that require a gradient, in place, with the options' optimiser.

        mask: weights that may move. stream: names the generator and the checkpoint; two calls in one eraser take two.
        after_backward comes before the mask.
        """
        masked = WeightMask(module, mask) if mask is not None else None
        kept = {**(stateful or {}), **({"mask": masked} if masked else {})}
        wanted = OptimizerOptions(kind=options.optimizer, lr=options.lr, weight_decay=options.weight_decay)
        return fit(
            module,
            batches,
            loss,
            optimizer=make_optimizer(module.parameters(), wanted),
            epochs=epochs,
            generator=self.generator(stream),
            schedule=schedule,
            on_epoch_start=on_epoch_start,
            after_backward=_both(after_backward, masked.after_backward if masked else None),
            after_step=masked.after_step if masked else None,
            max_grad_norm=max_grad_norm,
            checkpoint=self._checkpoint(stream),
            stateful=kept,
            description=stream,
        )

    def _checkpoint(self, stream: str) -> Checkpoint | None:
        if self.workdir is None:
            return None
        return Checkpoint(self.workdir / f"{stream.replace(' ', '-')}.checkpoint.pt", key=f"{self.key}/{stream}")


def erase_context(
    model: "TextToImage", generator: Callable[[str], torch.Generator], workdir: Path | None = None, key: str = ""
) -> EraseContext:
    """The context of erasing from `model`: its noise schedule, latents and text encoder."""

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Tensor:
        parts = [model.encode(list(prompts[i : i + 64])) for i in range(0, len(prompts), 64)]
        return torch.cat(parts)

    abar = model.scheduler.alphas_cumprod
    text = TextAccess(lambda prompts: model.tokenize(list(prompts)), model.token_table, model.encode)
    return EraseContext(abar, model.latent_shape, encode, model.tokens, generator, workdir, key, text)


def _both(first: Hook | None, second: Hook | None) -> Hook | None:
    if first is None or second is None:
        return first or second

    def hook(state: Any) -> None:
        first(state)
        second(state)

    return hook
