"""Erased models as small files: the weights that differ from their base, in safetensors, and the base's digest.

<part>.<name of the weight>      unet.* and text_encoder.*
metadata: format, base (digest of the base's weights), num_weights
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.errors import DataError, first_line
from shared.files import atomic_path

FORMAT = "changed weights 1"
PARTS = ("unet", "text_encoder")  # what erasers change


def weights_of(pipe: Any) -> dict[str, Tensor]:
    """Weights of the U-Net and, where there is one, the text encoder of a model, by part and name; no copies.

    pipe: a `TextToImage` or a `ClassDiffusion`, whose averaged weights are none of these. Names of the text encoder
    carry no "text_model.": releases of transformers differ in it.
    """
    found = {}
    for part in (part for part in PARTS if hasattr(pipe, part)):
        model: nn.Module = getattr(pipe, part)
        for name, value in model.state_dict().items():
            found[f"{part}.{name.removeprefix('text_model.')}"] = value.detach()
    return found


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, formats and bytes, whatever the order and memory layout."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.flatten().view(torch.uint8).numpy().data)  # a view: no copy
    return total.hexdigest()


def copy_weights(pipe: Any) -> dict[str, Tensor]:
    """The present weights, to compare an erased model with later."""
    return {name: value.clone() for name, value in weights_of(pipe).items()}


def save_diff(path: str | Path, base: Mapping[str, Tensor], erased: Any) -> int:
    """Write what `erased` (a model as for `weights_of`) changed of `base` (from `copy_weights`); returns how many.

    Raises DataError for an erased model with weights that are not finite, ValueError if the two have different weights.
    """
    now = weights_of(erased)
    if now.keys() != base.keys():
        other = sorted(now.keys() ^ base.keys())
        raise ValueError(f"the erased model is no variant of the base: {len(other)} weights differ, first {other[0]}")
    changed = {name: value for name, value in now.items() if not torch.equal(value, base[name])}
    for name, value in changed.items():
        if not value.isfinite().all():
            raise DataError(f"{name} has values that are not finite: the erasing diverged, lower its learning rate")
    metadata = {"format": FORMAT, "base": weights_digest(base), "num_weights": str(len(changed))}
    with atomic_path(path) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in changed.items()}, temporary, metadata)
    return len(changed)


@torch.no_grad()
def load_diff(path: str | Path, pipe: Any) -> int:
    """Turn a model of the base's weights into the erased one, in place; returns the number of weights.

    Raises DataError, and changes nothing, if the file is damaged, belongs to another base, or a name or shape does
    not fit.
    """
    path = Path(path)
    metadata, changed = _read(path)
    weights = weights_of(pipe)
    for name, value in changed.items():
        if name not in weights:
            raise DataError(f"{path}: {name} is no weight of this model; it was saved from another architecture")
        if value.shape != weights[name].shape:
            found, wanted = tuple(value.shape), tuple(weights[name].shape)
            raise DataError(f"{path}: {name} has shape {found}, this model's {wanted}; another architecture")
    base = weights_digest(weights)
    if metadata["base"] != base:
        bases = f"{metadata['base'][:16]}, this model is {base[:16]}"
        raise DataError(f"{path}: saved as a change of the base {bases}; load it onto its own base, freshly read")
    for name, value in changed.items():
        weights[name].copy_(value)
    return len(changed)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            changed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no readable safetensors file ({first_line(error)}); erase again") from None
    if metadata.get("format") != FORMAT or metadata.get("num_weights") != str(len(changed)):
        raise DataError(f"{path}: is not a file of changed weights of this repository; read it as a victim instead")
    return metadata, changed
