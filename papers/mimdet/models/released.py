"""The detectors that the authors released: which version a file is, and its weights in a detector of ours."""

from pathlib import Path

from torch import Tensor, nn

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from shared.data.checkpoints import load_checkpoint
from shared.detection.detectron2_keys import to_engine, without_constants
from shared.detection.weights import load_strictly
from shared.errors import DataError

_BACKBONE = "backbone.bottom_up."
_TOKEN = f"{_BACKBONE}decoder.mask_token"
_PROJECTION = f"{_BACKBONE}decoder.conv_feat_proj.weight"


def load_released(model: nn.Module, path: str | Path) -> None:
    """Fill a detector in place from a released file; every tensor of both has its place.

    On the torchvision engine names and classes are mapped (`shared.detection.detectron2_keys`), on detectron2's they
    are the file's. Raises DataError for a file of another version, size or position grid, naming the option to set.
    """
    tensors = load_checkpoint(path)
    backbone = _backbone(model)
    if isinstance(backbone, MimDet):
        tensors = check_version(tensors, backbone, path)
    elif not isinstance(backbone, Benchmarking):
        raise DataError(f"{path}: no released file fits a backbone {type(backbone).__name__}")
    if hasattr(model, "proposal_generator"):  # detectron2's own
        load_strictly(model, without_constants(tensors), path)
    else:
        model.load_state_dict(to_engine(tensors, model, path))


def check_version(tensors: dict[str, Tensor], backbone: MimDet, where: str | Path) -> dict[str, Tensor]:
    """The tensors that the backbone needs; raises DataError where its options are not those of the file.

    A file of version 2 may hold the mask token of version 1, which nothing reads: it goes.
    """
    options = backbone.options
    fill = "conv" if _PROJECTION in tensors else "mask_token"
    if f"{_BACKBONE}encoder.pos_embed" not in tensors:
        raise DataError(f"{where}: is no detector with a MIMDet backbone (no '{_BACKBONE}encoder.pos_embed')")
    if fill != options.fill:
        raise DataError(f"{where}: is version {2 if fill == 'conv' else 1} of the model; set fill: {fill}")
    rows = tensors[f"{_BACKBONE}encoder.pos_embed"].shape[1] - 1
    if rows != options.grid**2:
        raise DataError(f"{where}: has position tables of {rows} places; set grid: {round(rows**0.5)}")
    unused = {_TOKEN} if fill == "conv" else set()
    return {name: value for name, value in tensors.items() if name not in unused}


def _backbone(model: nn.Module) -> nn.Module:
    found: nn.Module = model.bare_backbone  # type: ignore[assignment]
    return found
