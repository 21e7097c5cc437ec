"""Released files and files of our own: every tensor has its place, or one line says which has not."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.data.checkpoints import check_tensors, load_checkpoint
from shared.errors import DataError

_WIDTHS = {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H"}


def load_sam(model: nn.Module, path: str | Path, new: Iterable[str] = ()) -> bool:
    """Fill a SAM model in place from a checkpoint (torch file of weights, or safetensors).

    new: names of the tensors that a plain SAM file lacks. Either all of them are in the file, or none is, and they
    keep their values. Returns whether they were. Raises DataError naming the file and the first tensor without a
    counterpart or with another shape.
    """
    tensors = load_checkpoint(path)
    optional = set(new)
    found = optional & tensors.keys()
    _check_encoder(path, model, tensors)
    _check_names(path, model, tensors, set() if found else optional)
    model.load_state_dict(tensors, strict=not optional or bool(found))
    return bool(found)


def load_decoder(model: nn.Module, path: str | Path) -> None:
    """Fill `model.mask_decoder` from a file of its tensors, with or without the prefix "mask_decoder."."""
    prefix = "mask_decoder."
    tensors = {name.removeprefix(prefix): value for name, value in load_checkpoint(path).items()}
    decoder = model.get_submodule("mask_decoder")
    _check_names(path, decoder, tensors, set())
    decoder.load_state_dict(tensors)


def _check_names(path: str | Path, model: nn.Module, tensors: dict[str, Tensor], optional: set[str]) -> None:
    check_tensors(path, tensors, model.state_dict(), "it belongs to another model", optional=optional)


def _check_encoder(path: str | Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """A file of another backbone differs in hundreds of tensors: say which backbone it is."""
    found, wanted = _backbone(tensors), _backbone(model.state_dict())
    if found is None:
        raise DataError(f"{path}: holds no SAM: neither a ViT ('image_encoder.pos_embed') nor a TinyViT encoder")
    if found != wanted:
        raise DataError(f"{path}: holds a SAM with {found}, this model has {wanted}; give the size of the file")


def _backbone(tensors: dict[str, Tensor]) -> str | None:
    if "image_encoder.patch_embed.seq.0.c.weight" in tensors:
        return "TinyViT"
    table = tensors.get("image_encoder.pos_embed")
    if table is None or table.ndim != 4:
        return None
    dim = table.shape[-1]
    blocks = {name.split(".")[2] for name in tensors if name.startswith("image_encoder.blocks.")}
    return f"{_WIDTHS.get(dim, 'a ViT')} (width {dim}, {len(blocks)} blocks)"


def released_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in the layout of the released files, on the CPU: SAM's tensors and the new ones, flat."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_released(model: nn.Module, path: str | Path) -> None:
    """Write a torch file that other implementations of the same model read."""
    from shared.files import atomic_path

    with atomic_path(path) as temporary:
        torch.save(released_state(model), temporary)
