"""A model that answers prompts, from a released file, from a finished run, or from a file saved of one.

prompted = load("sam_hq_vit_l.pth", device)                               # released by the authors, or a plain SAM
prompted = load("results/hq_sam/mini/jobs/E1/dis/HQ-SAM/s1-2.json", device)    # a row of a run
save(prompted, "shapes.safetensors")                                      # the same as a file that `load` reads
"""

import json
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from papers.hq_sam.models import NEW_MODULES, HqDecoder, build_hq, new_names
from papers.hq_sam.options import HqOptions
from shared.data.checkpoints import load_checkpoint
from shared.errors import DataError
from shared.files import atomic_path
from shared.imports import import_path
from shared.options import explain, parse_options
from shared.results.jobs import read_job
from shared.segmentation.context import Context
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.checkpoints import load_sam, released_state
from shared.segmentation.sam.model import SamModel, build_sam
from shared.segmentation.sam.options import SamSize, sam_size
from shared.segmentation.stages import load_part, load_stage_sam

_KEY = "hq_sam"
_SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_ENCODER_ADDITIONS = ("lora_", "adapter.")


def load(path: str | Path, device: torch.device, seed: int | None = None) -> Prompted:
    """The frozen model of a file or of a row's job, and how its decoder is asked.

    A released file answers by the sum of both masks, SAM's single one and the HQ token's. seed: of a job that has
    several; None: its first. Raises DataError naming the file.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _of_job(path, device, seed)
    if seed is not None:
        raise DataError(f"{path}: a seed goes with a JOB, a .json file of a finished run")
    own = _own_values(path)
    model = _released(path) if own is None else _saved(path, own)
    decode = {} if own is None else own["decode"]
    return Prompted(_ready(model, device), decode, bool(own and own["multimask"]))


def save(prompted: Prompted, path: str | Path) -> None:
    """Write a model with its size and the way it is asked. Raises DataError for one with additions to its encoder."""
    path, model = Path(path), prompted.model
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: a saved model is a .safetensors file; give it that ending")
    tensors = released_state(model)
    if any(part in name for name in tensors for part in _ENCODER_ADDITIONS):
        raise DataError(f"{path}: LoRA and adapters are not saved; use the JOB itself")
    hq = model.mask_decoder.options.model_dump(mode="json") if isinstance(model.mask_decoder, HqDecoder) else None
    values = {
        "size": model.size.model_dump(mode="json"),
        "hq": hq,
        "decode": prompted.decode,
        "multimask": prompted.multimask,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(values)})


def _ready(model: SamModel, device: torch.device) -> SamModel:
    return model.requires_grad_(False).eval().to(device)


def _own_values(path: Path) -> dict[str, Any] | None:
    """What `save` wrote beside the tensors; None for any other file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            text = (stored.metadata() or {}).get(_KEY)
        return None if text is None else dict(json.loads(text))
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged file ({error}); save it again") from None


def _saved(path: Path, values: dict[str, Any]) -> SamModel:
    try:
        size = SamSize.model_validate(values["size"])
        options = HqOptions.model_validate(values["hq"]) if values["hq"] else None
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); save it again") from None
    model: SamModel = build_hq(size, options, 0) if options else build_sam(size, 0)
    load_sam(model, path)
    return model


def _released(path: Path) -> SamModel:
    tensors = load_checkpoint(path)
    size = sam_size(_size_name(path, tensors))
    is_hq = any(name.startswith(f"mask_decoder.{module}.") for name in tensors for module in NEW_MODULES)
    model: SamModel = build_hq(size, seed=0) if is_hq else build_sam(size, 0)
    load_sam(model, path, new_names(model))
    return model


def _size_name(path: Path, tensors: dict[str, Tensor]) -> str:
    if "image_encoder.patch_embed.seq.0.c.weight" in tensors:
        return "tiny_vit"
    table = tensors.get("image_encoder.pos_embed")
    if table is None or table.ndim != 4:
        raise DataError(f"{path}: holds no SAM; give a released sam_vit_* or sam_hq_vit_* file, or one saved by --save")
    if table.shape[-1] not in _SIZES:
        raise DataError(
            f"{path}: its encoder is {table.shape[-1]} wide, which is no published size; "
            "models of a run are saved with their size: --checkpoint JOB --save FILE"
        )
    return _SIZES[table.shape[-1]]


def _of_job(path: Path, device: torch.device, seed: int | None) -> Prompted:
    job = read_job(path)
    if job.get("kind") != "row" or job.get("task") is None or "sam" not in next(iter(job["stages"].values()), {}):
        raise DataError(f"{path}: not a row with a SAM; give one such as jobs/E1/<setting>/HQ-SAM/<seeds>.json")
    chosen = job["seeds"][0] if seed is None else seed
    stages = job["stages"].get(str(chosen))
    if stages is None:
        raise DataError(f"{path}: has no seed {chosen}; its seeds are {', '.join(map(str, job['seeds']))}")
    for name, stage in stages.items():
        if not Path(stage["output"]).is_file():
            advice = f"run `python -m shared.run row {path}` in the folder of the run first"
            raise DataError(f"{path}: '{name}' is not trained yet ({stage['output']} is missing); {advice}")
    folders = {name: Path(stage["output"]).parent for name, stage in stages.items()}
    sam = load_stage_sam(folders["sam"])
    parts = {name: load_part(folders[name], stage["recipe"], sam) for name, stage in stages.items() if name != "sam"}
    options = parse_options(job["method"], job["options"])
    found = import_path(job["method"])({**parts, "sam": sam}, options, Context(device, chosen))
    if not isinstance(found, Prompted):
        raise DataError(f"{path}: the row '{job['row']}' is no promptable model; choose another")
    return Prompted(_ready(found.model, device), found.decode, found.multimask)
