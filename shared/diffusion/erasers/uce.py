"""UCE (Gandikota et al., WACV 2024, arXiv:2308.14761): the concept's text states take the anchor's keys and values."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.linear_edit import Regression, key_value_maps
from shared.diffusion.erasers.options import EraserOptions
from shared.options import NonNegative, Positive


class UceOptions(EraserOptions):
    """lam: how much the old weights count; erase_scale, preserve_scale: s_e and s_p, None for max(0.1, 1 / number of
    retained prompts).

    technique: "replace": the concept's values become the anchor's; "tensor": the anchor's without their component
    along the concept's own values.
    """

    lam: Positive = 0.5
    erase_scale: NonNegative = 1.0
    preserve_scale: NonNegative | None = None
    technique: Literal["replace", "tensor"] = "replace"


class Edit(NamedTuple):
    """Aligned text states, (n, d) each: `old` of the concept, `new` of what it becomes."""

    old: Tensor
    new: Tensor


@torch.no_grad()
def uce(unet: nn.Module, concept: Concept, options: UceOptions, context: EraseContext) -> Erased:
    """Edit every prompt of the concept to its anchor; keep the retained prompts."""
    anchors = concept.anchor_prompts()
    old, new = context.encode(concept.prompts), context.encode(anchors)
    edits = [
        aligned(a, b, len(context.tokens(p)), len(context.tokens(q)))
        for a, b, p, q in zip(old, new, concept.prompts, anchors, strict=True)
    ]
    preserved = context.encode(concept.retain).flatten(0, 1) if concept.retain else None
    edit_unet(unet, edits, preserved, len(concept.retain), options)
    return Erased(unet)


def aligned(old: Tensor, new: Tensor, num_old: int, num_new: int) -> Edit:
    """States of two prompts (L, d) from their last token to the end, cut to one length. num_*: tokens without
    specials."""
    length = min(len(old) - num_old, len(new) - num_new)
    # position 0 holds the start token, so a prompt's last token is at its number of tokens
    return Edit(old[num_old : num_old + length], new[num_new : num_new + length])


@torch.no_grad()
def edit_unet(
    unet: nn.Module, edits: Sequence[Edit], preserved: Tensor | None, num_preserved: int, options: UceOptions
) -> None:
    """W = (lam W0 + s_e sum v* k^T + s_p sum W0 k k^T) (lam I + s_e sum k k^T + s_p sum k k^T)^-1, in place, for every
    key and value map of cross-attention.

    preserved (m, d): the states to keep, of all positions of `num_preserved` prompts.
    """
    scale = options.preserve_scale
    if scale is None:
        scale = max(0.1, 1 / num_preserved) if num_preserved else 0.0
    old, new = torch.cat([e.old for e in edits]).double(), torch.cat([e.new for e in edits]).double()
    regression = Regression(old.shape[1], options.lam, old.device)
    regression.add(old, options.erase_scale)
    kept = torch.zeros_like(old.T @ old)
    if preserved is not None:
        regression.add(preserved, scale)
        kept = scale * preserved.double().T @ preserved.double()
    replaced = options.erase_scale * new.T @ old
    for _, layer in key_value_maps(unet):
        weight = layer.weight.double()
        moments = weight @ (replaced + kept)
        if options.technique == "tensor":
            moments -= options.erase_scale * sum(_along_itself(weight, edit) for edit in edits)
        layer.weight.copy_(regression.solve(layer.weight, moments))


def _along_itself(weight: Tensor, edit: Edit) -> Tensor:
    """<U, W0 K_new>_F U K_old^T, U = W0 K_old / |W0 K_old|_F: one projection over all positions."""
    old, new = edit.old.double(), edit.new.double()
    values, wanted = old @ weight.T, new @ weight.T
    unit = values / values.norm()
    return (unit * wanted).sum() * unit.T @ old
