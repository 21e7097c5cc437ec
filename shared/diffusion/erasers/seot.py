"""SuppressEOT (Li et al., ICLR 2024, arXiv:2402.05375): weaken the concept in the text states, at drawing time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shared.diffusion.erasers.attention import captured_attention
from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.noising import predict
from shared.diffusion.erasers.options import EraserOptions
from shared.diffusion.erasers.tokens import token_mask
from shared.diffusion.sample import ClassifierFree, Step
from shared.errors import ConfigError
from shared.options import Count, NonNegative, Positive


class SeotOptions(EraserOptions):
    """a: how strongly large singular values shrink. lr, updates: gradient steps on the text states at each of the first
    `steps` drawing steps; retain_weight, erase_weight: of their two losses. (a and lr are in no description that we
    have, and have no default.)"""

    a: Positive
    lr: NonNegative
    updates: Count = 10
    steps: Count = 20
    retain_weight: NonNegative = 1.0
    erase_weight: NonNegative = 0.5

    @property
    def in_weights(self) -> bool:
        """It is all in the guidance."""
        return False


def softened(states: Tensor, positions: Tensor, a: float) -> Tensor:
    """(L, d): at the `positions` (L,) bool, the matrix of the states with singular values s exp(-a s) instead of s."""
    left, values, right = torch.linalg.svd(states[positions], full_matrices=False)
    weakened = left @ torch.diag(values * torch.exp(-a * values)) @ right
    changed = states.clone()
    changed[positions] = weakened
    return changed


def attention_loss(
    new: dict[str, Tensor], old: dict[str, Tensor], concept: Tensor, retain: float, erase: float
) -> Tensor:
    """retain |A' - A|^2 at the other positions - erase |A' - A|^2 at the concept's, means, summed over the layers.

    new, old: probabilities (B, heads, h*w, L) with the states at hand and with the prompt's own; concept (B, L) bool.
    """
    chosen = concept[:, None, None, :].float()
    weight = retain * (1 - chosen) - erase * chosen
    return torch.stack([(weight * (a - old[name]).square()).mean() for name, a in new.items()]).sum()


class Suppression:
    """Plain guidance with softened states at the concept's and the end positions; then a few gradient steps on them
    while the layout forms. Prompts without the concept's words are drawn as they are.

    positions (N, L) bool: the concept's and the end positions of the N prompts. The U-Net is given its changing states
    by a hook, which is there while a batch is drawn.
    """

    def __init__(self, unet: nn.Module, positions: Tensor, options: SeotOptions, plain: ClassifierFree) -> None:
        self._unet, self._positions, self._options, self._plain = unet, positions, options, plain
        self._own = self._states = torch.empty(0)
        self._index, self._inside = 0, False
        self._handle: RemovableHandle | None = None

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """(2, N, L, d): the empty prompt, the prompts softened."""
        self._own = conditions
        pairs = zip(conditions, self._positions, strict=True)
        self._states = torch.stack([softened(s, m, self._options.a) if m.any() else s for s, m in pairs])
        return self._plain.branches(null, self._states)

    def start(self, rows: slice) -> "Suppression":
        """The same for some of the prompts, with its hook in place."""
        part = Suppression(self._unet, self._positions[rows], self._options, self._plain.start(rows))
        part._own, part._states = self._own[rows], self._states[rows]
        if self._options.lr:
            part._handle = self._unet.register_forward_pre_hook(part._replace_states, with_kwargs=True)
        return part

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Predictions (2, B, C, h, w) to one."""
        self._index = step.index + 1
        if self._handle is not None and self._index == step.num_steps:
            self._handle.remove()
        return self._plain(predictions, step)

    def _replace_states(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The prompts' states of this call, updated, in the place of the softened ones."""
        if self._inside:
            return None
        if self._index < self._options.steps:
            self._inside = True
            try:
                self._states = self.updated(args[0].chunk(2)[1], args[1], self._states)
            finally:
                self._inside = False
        null = kwargs["encoder_hidden_states"].chunk(2)[0]
        return args, {**kwargs, "encoder_hidden_states": torch.cat([null, self._states])}

    @torch.enable_grad()
    def updated(self, latents: Tensor, timestep: Tensor, states: Tensor) -> Tensor:
        """States after `updates` gradient steps that keep attention to the rest and move it away from the concept.
        latents (B, C, h, w) as the U-Net gets them."""
        options, times = self._options, timestep.expand(len(latents))
        with torch.no_grad(), captured_attention(self._unet) as old:
            predict(self._unet, latents, times, self._own)
        states = states.detach()
        for _ in range(options.updates):
            states.requires_grad_(True)
            with captured_attention(self._unet) as new:
                predict(self._unet, latents, times, states)
            loss = attention_loss(new, old, self._positions, options.retain_weight, options.erase_weight)
            (gradient,) = torch.autograd.grad(loss, states)
            states = (states - options.lr * gradient).detach()
        return states


def concept_positions(prompts: Sequence[str], word: list[int], length: int, context: EraseContext) -> Tensor:
    """(N, L) bool: the word's and the end positions; nowhere in prompts without the word."""
    rows = []
    for prompt in prompts:
        try:
            rows.append(token_mask(context.tokens(prompt), word, length, prompt, with_padding=True))
        except ConfigError:
            rows.append(torch.zeros(length, dtype=torch.bool))
    return torch.stack(rows)


def seot(unet: nn.Module, concept: Concept, options: SeotOptions, context: EraseContext) -> Erased:
    """No training."""
    unet.requires_grad_(False)
    word, like = context.tokens(concept.name), context.encode([""])

    def guidance(prompts: Sequence[str], scale: float | Sequence[float]) -> Suppression:
        positions = concept_positions(prompts, word, like.shape[1], context).to(like.device)
        return Suppression(unet, positions, options, ClassifierFree(scale))

    return Erased(unet, guidance)
