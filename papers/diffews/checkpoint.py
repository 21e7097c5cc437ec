"""A few-shot segmenter from a released folder, from a finished run, or from a file saved of one.

segmenter = load("Diffews/coco_fold0", device)                                 # of the authors, with `unet/` in it
segmenter = load("results/diffews/mini/jobs/C/seen/FSA-concat/s3-4.json", device)    # a row of a run
save(segmenter, "families.safetensors")                                        # the same as a file that `load` reads
"""

import json
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from papers.diffews.method import FewShot, diffews, released
from papers.diffews.network import Diffews
from papers.diffews.options import Answering, DiffewsOptions, FineTuning, ReleasedOptions, StableDiffusion
from papers.diffews.pretraining import load_stable_diffusion
from papers.diffews.released import check_names, load_unet
from papers.diffews.training import build
from shared.data.checkpoints import load_checkpoint
from shared.errors import DataError
from shared.files import atomic_path
from shared.options import explain
from shared.results.jobs import read_job
from shared.segmentation.context import Context
from shared.segmentation.stages import load_part

_KEY = "diffews"
METHODS = ("papers.diffews.method:diffews", "papers.diffews.method:released")


def load(path: str | Path, device: torch.device, seed: int | None = None) -> FewShot:
    """The segmenter of a released folder, of a row's job, or of a saved file. seed: of a job that has several; None:
    its first. Raises DataError naming the file."""
    path = Path(path)
    if path.suffix == ".json":
        return _of_job(path, device, seed)
    if seed is not None:
        raise DataError(f"{path}: a seed goes with a JOB, a .json file of a finished run")
    return _released(path, device) if path.is_dir() else _saved(path, device)


def save(segmenter: FewShot, path: str | Path) -> None:
    """Write the network with its options and the way it answers. Raises DataError for another ending."""
    path, model = Path(path), segmenter.model
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: a saved model is a .safetensors file; give it that ending")
    values = {
        "model": model.options.model_dump(mode="json"),
        "answering": _answering(segmenter.answering).model_dump(mode="json"),
        "seed": segmenter.seed,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(values)})


def _answering(options: Answering) -> Answering:
    return Answering(**{name: getattr(options, name) for name in Answering.model_fields})


def _ready(model: Diffews, device: torch.device) -> Diffews:
    return model.requires_grad_(False).eval().to(device)


def _released(folder: Path, device: torch.device) -> FewShot:
    start = StableDiffusion()
    model = Diffews(load_stable_diffusion(start), FineTuning(start=start))
    load_unet(model, folder / "unet")
    return FewShot(_ready(model, device), Answering(), 0)


def _saved(path: Path, device: torch.device) -> FewShot:
    values = _values(path)
    try:
        options = FineTuning.model_validate(values["model"])
        answering = Answering.model_validate(values["answering"])
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); save it again") from None
    model, tensors = build(None, options, 0), load_checkpoint(path)
    check_names(path, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return FewShot(_ready(model, device), answering, int(values["seed"]))


def _values(path: Path) -> dict[str, Any]:
    advice = "make one with `python -m papers.diffews.predict --checkpoint JOB --save FILE`"
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; {advice}")
    try:
        with safe_open(path, framework="pt") as stored:
            values = json.loads((stored.metadata() or {}).get(_KEY, "null"))
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: no checkpoint of this tool, or a damaged one ({error}); {advice}") from None
    if not isinstance(values, dict) or not {"model", "answering", "seed"} <= values.keys():
        raise DataError(f"{path}: holds no options of DiffewS; {advice}")
    return values


def _of_job(path: Path, device: torch.device, seed: int | None) -> FewShot:
    job = read_job(path)
    if job.get("method") not in METHODS:
        raise DataError(f"{path}: a job of {job.get('method', 'no method')}, expected a row of {' or '.join(METHODS)}")
    chosen = job["seeds"][0] if seed is None else seed
    stages = job["stages"].get(str(chosen))
    if stages is None:
        raise DataError(f"{path}: has no seed {chosen}; its seeds are {', '.join(map(str, job['seeds']))}")
    context = Context(device, chosen)
    if job["method"] == METHODS[1]:
        return released({}, ReleasedOptions.model_validate(job["options"]), context)
    stage = stages["model"]
    if not Path(stage["output"]).is_file():
        advice = f"run `python -m shared.run row {path}` in the folder of the run first"
        raise DataError(f"{path}: 'model' is not trained yet ({stage['output']} is missing); {advice}")
    model = load_part(Path(stage["output"]).parent, stage["recipe"], None)
    return diffews({"model": model.to(device)}, DiffewsOptions.model_validate(job["options"]), context)
