"""A detector to use: from a released file, from a finished run, or from a file saved of one.

ready = load("mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.pth", device)   # released by the authors
ready = load("results/mimdet/mini/jobs/E2/test-1.0/train-0.5/s1-2.json", device)          # a row of a run
save(ready, "shapes.safetensors")                                                         # a file that `load` reads
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.released import load_released
from papers.mimdet.options import BenchmarkingOptions, MimDetOptions
from shared.config import load_config
from shared.data.checkpoints import load_checkpoint
from shared.detection.detector import build_detector
from shared.detection.options import DetectorOptions, FixedSize, InputSize, PixelOptions, ResNetOptions, ShortSide
from shared.detection.resnet import ResNet
from shared.detection.task import Task
from shared.detection.weights import load_strictly
from shared.errors import DataError
from shared.files import atomic_path
from shared.options import Options, explain
from shared.results.jobs import read_job
from shared.segmentation.stages import load_part

_KEY = "mimdet"
_WIDTHS = {768: {}, 1024: {"dim": 1024, "depth": 24, "heads": 16}}
_ROWS = {"mimdet": "mimdet", "released": "mimdet", "benchmarking": "benchmarking"}


class Form(Options):
    """What a detector is besides its weights. backbone: options of its kind; classes: names in order of their numbers;
    size, pixels: how pictures enter it."""

    kind: Literal["mimdet", "benchmarking", "mask_rcnn"]
    backbone: dict[str, Any]
    detector: DetectorOptions
    classes: list[str]
    size: InputSize
    pixels: PixelOptions


@dataclass(frozen=True)
class Ready:
    """A frozen detector and its form."""

    model: nn.Module
    form: Form


def load(path: str | Path, device: torch.device, seed: int | None = None) -> Ready:
    """The detector of a file, or of a row's job. seed: of a job that has several; None: its first.

    Raises DataError naming the file.
    """
    path = Path(path)
    if path.suffix == ".json":
        found = _of_job(path, seed)
    elif seed is not None:
        raise DataError(f"{path}: a seed goes with a JOB, a .json file of a finished run")
    else:
        form = _own_form(path)
        found = _released(path) if form is None else _saved(path, form)
    return Ready(found.model.requires_grad_(False).eval().to(device), found.form)


def save(ready: Ready, path: str | Path) -> None:
    """Write a detector and its form to one .safetensors file."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: a saved detector is a .safetensors file; give it that ending")
    tensors = {name: value.cpu().contiguous() for name, value in ready.model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: ready.form.model_dump_json()})


def build(form: Form) -> nn.Module:
    """A detector of that form, to be filled."""
    backbone: nn.Module
    if form.kind == "mimdet":
        backbone = MimDet(MimDetOptions.model_validate(form.backbone))
    elif form.kind == "benchmarking":
        backbone = Benchmarking(BenchmarkingOptions.model_validate(form.backbone))
    else:
        backbone = ResNet(ResNetOptions.model_validate(form.backbone))
    return build_detector(backbone, form.detector, len(form.classes))


def _own_form(path: Path) -> Form | None:
    """What `save` wrote beside the tensors; None for any other file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            text = (stored.metadata() or {}).get(_KEY)
        return None if text is None else Form.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); save it again") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged file ({error}); save it again") from None


def _saved(path: Path, form: Form) -> Ready:
    try:
        model = build(form)
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); save it again") from None
    load_strictly(model, load_checkpoint(path), path)
    return Ready(model, form)


def _released(path: Path) -> Ready:
    form = released_form(load_checkpoint(path), path)
    model = build(form)
    load_released(model, path)
    return Ready(model, form)


def released_form(tensors: Mapping[str, Tensor], where: str | Path) -> Form:
    """Kind, size and version of a file of the authors; its classes are COCO's."""
    classes = load_config("mimdet", "full").tasks["coco"]["evaluate"]["classes"]
    common = {"detector": DetectorOptions(), "classes": classes, "pixels": PixelOptions()}
    top = "backbone.bottom_up."
    table = tensors.get(f"{top}encoder.pos_embed")
    if table is None and f"{top}windowed_rel_pos_bias.relative_position_bias_table" in tensors:
        return Form(kind="benchmarking", backbone={"axes": "rows"}, size=FixedSize(), **common)
    if table is None or table.shape[-1] not in _WIDTHS:
        raise DataError(
            f"{where}: is no released MIMDet; give a file of the authors, a JOB, or a file made by --save of one"
        )
    fill = "conv" if f"{top}decoder.conv_feat_proj.weight" in tensors else "mask_token"
    backbone = {**_WIDTHS[table.shape[-1]], "fill": fill, "grid": round((table.shape[1] - 1) ** 0.5)}
    return Form(kind="mimdet", backbone=backbone, size=ShortSide(), **common)


def _of_job(path: Path, seed: int | None) -> Ready:
    job = read_job(path)
    name = str(job.get("method", "")).rpartition(":")[2]
    kind = "mask_rcnn" if name == "mask_rcnn" else _ROWS.get(name.removeprefix("released_"))
    if job.get("kind") != "row" or job.get("task") is None or kind is None:
        raise DataError(f"{path}: not a row with a detector; give one such as jobs/E2/test-1.0/train-0.5/<seeds>.json")
    chosen = job["seeds"][0] if seed is None else seed
    stages = job["stages"].get(str(chosen))
    if stages is None:
        raise DataError(f"{path}: has no seed {chosen}; its seeds are {', '.join(map(str, job['seeds']))}")
    stage = stages["model"]
    if not Path(stage["output"]).is_file():
        advice = f"run `python -m shared.run row {path}` in the folder of the run first"
        raise DataError(f"{path}: is not trained yet ({stage['output']} is missing); {advice}")
    recipe, spec = stage["recipe"], Task.model_validate(job["task"]).evaluate
    options = recipe["options"]
    form = Form(
        kind=kind,  # type: ignore[arg-type]
        backbone=options["resnet" if kind == "mask_rcnn" else "backbone"],
        detector=DetectorOptions.model_validate(options["detector"]),
        classes=spec.classes,
        size=spec.size,
        pixels=spec.pixels,
    )
    return Ready(load_part(Path(stage["output"]).parent, recipe, None), form)
