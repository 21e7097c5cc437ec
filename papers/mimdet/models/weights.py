"""MAE's published weights in the backbones, by the rules of section 4.1: what loads, what is left, what is resized."""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.positions import resize_table
from shared.errors import DataError

_TABLES = ("pos_embed", "decoder_pos_embed")
_DECODER = re.compile(r"decoder_(embed|blocks|norm|pos_embed)|mask_token")


def load_mae(
    backbone: MimDet, tensors: dict[str, Tensor], where: str | Path = "MAE weights", decoder: bool = True
) -> list[str]:
    """Fill encoder and decoder in place from the tensors of a *full* MAE file; returns those of its names not used.

    Everything of the transformer must be there. Of the file stay unused: its class token and pixel predictor, the
    decoder blocks beyond the backbone's, the patch embedding if the stem is a ConvStem, the mask token if dropped
    tokens are filled with features. Position tables are resized to the backbone's grid. Of the backbone keep their
    values: ConvStem, the projection of features, upsampling. decoder: False leaves the decoder as it is.
    """
    fresh = {"encoder": re.compile(r"patch_embed\.proj\.\d+\."), "decoder": re.compile(r"conv_feat_proj\.")}
    used = _fill(backbone.encoder, tensors, where, fresh["encoder"])
    if decoder:
        if not any(name.startswith("decoder_") for name in tensors):
            raise DataError(f"{where}: holds no decoder; take the file whose name ends with _full.pth")
        used |= _fill(backbone.decoder, tensors, where, fresh["decoder"])
    return sorted(tensors.keys() - used)


def load_mae_encoder(
    backbone: Benchmarking, tensors: dict[str, Tensor], where: str | Path = "MAE weights"
) -> list[str]:
    """Fill the baseline's patch embedding and blocks in place; returns the file's names that stay unused.

    Its position table keeps the sine formula at its own grid, and what MAE does not have its values.
    """
    fresh = re.compile(r"pos_embed$|ms_adaptor\.|(windowed|global)_rel_pos_bias\.")
    return sorted(tensors.keys() - _fill(backbone, tensors, where, fresh))


def _fill(module: nn.Module, tensors: dict[str, Tensor], where: str | Path, fresh: re.Pattern[str]) -> set[str]:
    """Copy a tensor into every one of the module's, except those that `fresh` matches. Returns the names used."""
    own = module.state_dict()
    found = {}
    for name, value in own.items():
        if fresh.match(name):
            continue
        if name not in tensors:
            raise DataError(f"{where}: has no tensor '{name}'{_advice(name)}")
        given = tensors[name]
        if name in _TABLES and given.ndim == 3 and given.shape[2] == value.shape[2]:
            given = _resized(given, value, name, where)
        if given.shape != value.shape:
            raise DataError(
                f"{where}: '{name}' is {tuple(given.shape)}, the model's is {tuple(value.shape)}: "
                f"another size of ViT{_width(tensors)}"
            )
        found[name] = given
    module.load_state_dict(found, strict=False)
    return set(found)


def _resized(given: Tensor, own: Tensor, name: str, where: str | Path) -> Tensor:
    """A file's table with one extra row, at the grid of the model's."""
    before, after = (round((table.shape[1] - 1) ** 0.5) for table in (given, own))
    if before**2 + 1 != given.shape[1]:
        raise DataError(f"{where}: '{name}' has {given.shape[1]} rows, expected a square number and one")
    return torch.cat([given[:, :1], resize_table(given, (after, after))], 1)


def _advice(name: str) -> str:
    if _DECODER.match(name):
        return ": it has fewer decoder blocks, or is no full MAE file (_full.pth)"
    return "" if not name.startswith("blocks.") else ": it has fewer blocks"


def _width(tensors: dict[str, Tensor]) -> str:
    table = tensors.get("pos_embed")
    blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    return "" if table is None else f" (the file's has width {table.shape[-1]} and {len(blocks)} blocks)"
