"""What the stage jobs of the segmentation track make: the model that parts start from, and the trained parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.data.checkpoints import check_tensors, checkpoint_file, load_checkpoint
from shared.errors import DataError
from shared.files import atomic_path, digest, write_json
from shared.gpu.device import device_name
from shared.gpu.launch import is_main_process
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.options import parse_options
from shared.results.records import Cost, Record
from shared.segmentation.context import Context
from shared.segmentation.data import DataSpec
from shared.segmentation.options import PretrainRecipe
from shared.segmentation.parts import BASE
from shared.segmentation.pretrain import pretrain
from shared.segmentation.sam.checkpoints import load_sam
from shared.segmentation.sam.model import SamModel, build_sam
from shared.segmentation.sam.options import SamSize
from shared.training.seeds import stream_seed

WEIGHTS = "weights.safetensors"
SOURCE = "source.json"
_DATA: TypeAdapter[DataSpec] = TypeAdapter(DataSpec)


def run_stage(job: Mapping[str, Any], out: Path, workdir: Path, threads: int = 1) -> Record:
    """Make a stage (`job["recipe"]`, from `protocol`) and leave its artifacts in `out`.

    A killed run continues from its checkpoints in `workdir`.
    """
    recipe = job["recipe"]
    context = Context(
        job_device(),
        recipe["seed"],
        threads,
        {name: _DATA.validate_python(spec) for name, spec in _data(recipe).items()},
        workdir,
        digest(recipe),
    )
    with PeakMemory(context.device) as peak:
        if recipe["stage"] == "sam":
            _make_sam(recipe, context, out)
        else:
            _make_part(recipe, context, job.get("stages", {}), out)
    return Record(
        paper="",
        scale="",
        experiment="stage",
        setting="",
        row=recipe.get("train", recipe["stage"]),
        seed=recipe["seed"],
        metrics=context.measured,
        cost=Cost(
            sum(fit.seconds for fit in context.fits),
            sum(fit.steps for fit in context.fits),
            peak.peak_mb,
            device_name(context.device),
        ),
        extras={"history": [fit.history for fit in context.fits]},
    )


def _data(recipe: Mapping[str, Any]) -> dict[str, Any]:
    data = recipe.get("data") or {}
    return {"pretrain": data} if "kind" in data else dict(data)


def _make_sam(recipe: Mapping[str, Any], context: Context, out: Path) -> None:
    """Name the published file, or train a small model."""
    if recipe.get("checkpoint"):
        if is_main_process():
            write_json(out / SOURCE, {"checkpoint": recipe["checkpoint"], "size": recipe["size"]})
        return
    size = SamSize.model_validate(recipe["size"])
    model = build_sam(size, stream_seed(context.seed, "sam weights")).to(context.device)
    pretrain(model, context.source("pretrain"), PretrainRecipe.model_validate(recipe["pretrain"]), context)
    if is_main_process():
        _save(dict(model.state_dict()), out / WEIGHTS)
        write_json(out / SOURCE, {"weights": WEIGHTS, "size": recipe["size"]})


def _make_part(recipe: Mapping[str, Any], context: Context, stages: Mapping[str, Any], out: Path) -> None:
    """Build, train, and keep the tensors in which the part differs from SAM."""
    folders = {name: Path(stage["output"]).parent for name, stage in stages.items()}
    sam = load_stage_sam(folders["sam"]) if "sam" in folders else None
    base = load_part(folders[BASE], stages[BASE]["recipe"], None) if BASE in folders else sam
    options = parse_options(recipe["train"], recipe["options"])
    model = import_path(recipe["build"])(sam, options, stream_seed(context.seed, "part weights")).to(context.device)
    import_path(recipe["train"])(model, base, options, context)
    if is_main_process():
        known = sam.state_dict() if sam is not None else {}
        own = {name: value for name, value in model.state_dict().items() if not _same(value, known.get(name))}
        _save(own, out / WEIGHTS)


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.shape == other.shape and torch.equal(value, other)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)


# ---- for stages and rows


def load_stage_sam(folder: Path) -> SamModel:
    """The model that a `sam` stage made or names, frozen, in evaluation mode, on the job's device."""
    path = folder / SOURCE
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        size = SamSize.model_validate(source["size"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: names no model ({error}); delete its folder and run the stage again") from None
    model = build_sam(size, 0)
    load_sam(model, checkpoint_file(source["checkpoint"]) if "checkpoint" in source else folder / source["weights"])
    return model.requires_grad_(False).eval().to(job_device())


def load_part(folder: Path, recipe: Mapping[str, Any], sam: SamModel | None) -> nn.Module:
    """A trained part in evaluation mode: built as before, with the tensors that its stage kept.

    Raises DataError for a file that does not fit: a tensor that neither it nor SAM has, or an unknown one.
    """
    options = parse_options(recipe["train"], recipe["options"])
    model: nn.Module = import_path(recipe["build"])(sam, options, stream_seed(recipe["seed"], "part weights"))
    path = folder / WEIGHTS
    kept = load_checkpoint(path)
    known = sam.state_dict() if sam is not None else {}
    check_tensors(path, kept, model.state_dict(), "delete its folder and run the stage again", optional=known)
    # what the file leaves out is SAM's, whatever `build` has put there
    from_sam = {name: known[name] for name in model.state_dict() if name not in kept}
    model.load_state_dict({**from_sam, **kept})
    return model.requires_grad_(False).eval().to(job_device())
