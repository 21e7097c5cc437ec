"""Published erased models: whole U-Nets or text encoders as torch files or safetensors, in diffusers' names.

The key names must be the model's own, up to the prefixes that the published files carry; nothing else is accepted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import DataError, named_reason, nearest

# Names of the parts inside a file of several, wrappers of training scripts, and the nesting of older transformers
PREFIXES = ("module.", "unet.", "model.", "text_encoder.", "text_model.")
NESTED = ("state_dict", "unet", "model", "text_encoder")  # dicts that hold the weights one level down
# Buffers of older releases, which today's classes compute
COMPUTED = ("embeddings.position_ids",)


@torch.no_grad()
def load_victim(path: str | Path, pipe: Any, part: str | None = None) -> str:
    """Replace the U-Net's or text encoder's weights of a `TextToImage` by those of a file; returns the part's name.

    part: "unet" or "text_encoder"; default: the text encoder if the path says "TextEncoder", as the published files are
    named, else the U-Net. Raises DataError, and changes nothing, if the file cannot be read safely, or a name or shape
    does not fit, or a weight is missing.
    """
    path = Path(path)
    part = part or ("text_encoder" if "textencoder" in str(path).lower().replace("_", "") else "unet")
    model = getattr(pipe, part)
    own = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    found = _own_names(_read(path), own)
    unknown = sorted(found.keys() - own.keys())
    if unknown:
        hint = nearest(unknown[0], list(own))
        raise DataError(f"{path}: {unknown[0]} is no weight of the {part} ({len(unknown)} such){hint}")
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise DataError(
            f"{path}: holds {len(found)} of the {len(own)} weights of the {part}, first missing {missing[0]}"
        )
    for name, value in found.items():
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)}, the model's is {tuple(own[name].shape)}"
            raise DataError(f"{path}: {name} has shape {shapes}: a victim of another base model")
        if not value.isfinite().all():
            raise DataError(f"{path}: {name} has values that are not finite")
    for name, value in found.items():
        own[name].copy_(value)
    return part


def _own_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that all of a file's weights share."""
    names = list(weights)
    while not any(name in own for name in names):
        shared = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if shared is None:
            break
        names = [name.removeprefix(shared) for name in names]
    renamed = dict(zip(names, weights.values(), strict=True))
    return {name: value for name, value in renamed.items() if name not in COMPUTED}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: no weights can be read ({named_reason(error)})") from None
    while isinstance(content, Mapping) and len(content) == 1 and next(iter(content)) in NESTED:
        content = next(iter(content.values()))
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise DataError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return {str(name): value for name, value in content.items()}
