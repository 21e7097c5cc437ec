"""SegIC from a released file, from a finished run, or from a file saved of one.

predictor = load("segic_dinov2_l_80kx12e.pth", device)                          # by the authors
predictor = load("results/segic/mini/jobs/E4/fss/all/s1.json", device)          # a row of a run
save(predictor, "shapes.safetensors")                                           # the same as a file that `load` reads
"""

import json
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from papers.segic.backbone import FrozenBackbone
from papers.segic.backbone import build as build_backbone
from papers.segic.model import SegicModel, build_segic
from papers.segic.options import BACKBONES, Assembly, Backbone
from papers.segic.predictor import SegicPredictor
from papers.segic.released import load_released
from papers.segic.text import text_encoder
from shared.data.checkpoints import load_checkpoint
from shared.errors import DataError
from shared.files import atomic_path
from shared.imports import import_path
from shared.options import explain, parse_options
from shared.results.jobs import read_job
from shared.segmentation.context import Context
from shared.segmentation.stages import load_part

_KEY = "segic"
_FIELDS = set(Assembly.model_fields) - {"data"}


def load(path: str | Path, device: torch.device, seed: int | None = None) -> SegicPredictor:
    """The predictor of a file or of a row's job. A released file's backbone follows from its shapes, and comes with the
    text encoder from their manifests.

    seed: of a job that has several; None: its first. Raises DataError naming the file.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _of_job(path, device, seed)
    if seed is not None:
        raise DataError(f"{path}: a seed goes with a JOB, a .json file of a finished run")
    return _saved(path, device) if path.suffix == ".safetensors" else _released(path, device)


def save(predictor: SegicPredictor, path: str | Path) -> None:
    """Write decoder and backbone with their options; a published backbone is named, and not written."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: a saved model is a .safetensors file; give it that ending")
    parts = {"decoder": predictor.model, "backbone": predictor.backbone}
    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    values = predictor.model.options.model_dump(mode="json", include=_FIELDS)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(values)})


def _released(path: Path, device: torch.device) -> SegicPredictor:
    tensors = load_checkpoint(path)
    weight = tensors.get("inst_proj.weight")
    dims = {kind.dim: name for name, kind in BACKBONES.items() if name.startswith("dinov2")}
    if weight is None or weight.ndim != 2 or weight.shape[1] not in dims:
        raise DataError(f"{path}: holds no SegIC on a DINOv2; give a released file, or one saved by --save")
    name = dims[weight.shape[1]]
    options = Assembly(backbone=Backbone(name=name, weights=name))
    model = build_segic(options, 0)
    load_released(model, path)
    return _ready(model, build_backbone(None, options.backbone, 0), device)


def _saved(path: Path, device: torch.device) -> SegicPredictor:
    tensors = load_checkpoint(path)
    options = _own_options(path)
    model, backbone = build_segic(options, 0), build_backbone(None, options.backbone, 0)
    for prefix, module in (("decoder.", model), ("backbone.", backbone)):
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise DataError(f"{path}: does not fit its own options ({first}); save it again") from None
    return _ready(model, backbone, device)


def _own_options(path: Path) -> Assembly:
    try:
        with safe_open(path, framework="pt") as stored:
            text = (stored.metadata() or {}).get(_KEY)
        if text is None:
            raise DataError(f"{path}: was not saved by this tool; give a released file, or one saved by --save")
        return Assembly.model_validate(json.loads(text))
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); save it again") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged file ({error}); save it again") from None


def _of_job(path: Path, device: torch.device, seed: int | None) -> SegicPredictor:
    job = read_job(path)
    stages = _stages(path, job, seed)
    parts: dict[str, nn.Module] = {
        name: load_part(Path(stage["output"]).parent, stage["recipe"], None) for name, stage in stages.items()
    }
    options = parse_options(job["method"], job["options"])
    found: Any = import_path(job["method"])(parts, options, Context(device, 0))
    if not isinstance(found, SegicPredictor):
        raise DataError(f"{path}: the row '{job['row']}' has no decoder; choose another")
    return found


def _stages(path: Path, job: Any, seed: int | None) -> Any:
    """The trained parts of a row's job for a seed."""
    known = job.get("stages") or {}
    if job.get("kind") != "row" or "decoder" not in next(iter(known.values()), {}):
        raise DataError(f"{path}: not a row of SegIC; give one such as jobs/E4/<setting>/all/<seeds>.json")
    chosen = job["seeds"][0] if seed is None else seed
    if str(chosen) not in known:
        raise DataError(f"{path}: has no seed {chosen}; its seeds are {', '.join(map(str, job['seeds']))}")
    for name, stage in known[str(chosen)].items():
        if not Path(stage["output"]).is_file():
            advice = f"run `python -m shared.run row {path}` in the folder of the run first"
            raise DataError(f"{path}: '{name}' is not trained yet ({stage['output']} is missing); {advice}")
    return known[str(chosen)]


def _ready(model: SegicModel, backbone: FrozenBackbone, device: torch.device) -> SegicPredictor:
    texts = text_encoder(model.options.text)
    return SegicPredictor(model.requires_grad_(False).eval().to(device), backbone.eval().to(device), texts)
