"""Both networks in one file, with the options they were made with: train once, use anywhere.

save_checkpoint({"prompter": prompter, "segmentor": segmentor}, options, "nuclei.safetensors")
segmenter = load_checkpoint("nuclei.safetensors")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from papers.promptnucseg.method import NucleusSegmenter, PromptNucSegOptions, promptnucseg
from papers.promptnucseg.prompter.model import build_prompter
from shared.data.checkpoints import check_tensors
from shared.errors import ConfigError, DataError
from shared.files import atomic_path
from shared.options import explain
from shared.results.jobs import read_job
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SamSize
from shared.segmentation.stages import load_part, load_stage_sam

_KEY = "promptnucseg"
METHOD = "papers.promptnucseg.method:promptnucseg"


def save_checkpoint(parts: Mapping[str, nn.Module], options: PromptNucSegOptions, path: str | Path) -> None:
    """Write the networks that a row uses to one safetensors file. parts, options: as for `promptnucseg`.

    Raises ConfigError for a row that takes the true nuclei's centroids as prompts: it finds nothing by itself.
    """
    segmenter = promptnucseg(parts, options, None)
    if segmenter.prompter is None:
        raise ConfigError("a checkpoint needs a prompter; this row takes its prompts from the truth: choose another")
    values = {"options": options.model_dump(mode="json"), "size": segmenter.model.size.model_dump(mode="json")}
    networks: dict[str, nn.Module] = {"segmentor": segmenter.model, "prompter": segmenter.prompter}
    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(values)})


def load_checkpoint(path: str | Path, device: torch.device | None = None) -> NucleusSegmenter:
    """The segmenter of a file that `save_checkpoint` wrote. Raises DataError naming the file if it is none."""
    values, tensors = _read(Path(path))
    try:
        options = PromptNucSegOptions.model_validate(values["options"])
        size = SamSize.model_validate(values["size"])
    except pydantic.ValidationError as error:
        raise DataError(f"{path}: was written by another version ({explain(error)}); export it again") from None
    assert options.prompter is not None
    model, prompter = build_sam(size, 0), build_prompter(options.prompter, 0)
    for part, network in (("segmentor", model), ("prompter", prompter)):
        _fill(path, part, network, tensors)
        network.requires_grad_(False).eval().to(device or torch.device("cpu"))
    parts: dict[str, nn.Module] = {"segmentor": model, "sam": model, "prompter": prompter}
    return promptnucseg(parts, options, None)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    advice = "make one with `python -m papers.promptnucseg.predict --checkpoint JOB --save FILE`"
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; {advice}")
    try:
        with safe_open(path, framework="pt") as stored:
            values = json.loads((stored.metadata() or {}).get(_KEY, "null"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()} if values else {}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: no checkpoint of this tool, or a damaged one ({error}); {advice}") from None
    if not isinstance(values, dict) or not {"options", "size"} <= values.keys():
        raise DataError(f"{path}: holds no options of PromptNucSeg; {advice}")
    return values, tensors


def _fill(path: str | Path, part: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    found = {name: value for name, value in tensors.items() if name.startswith(f"{part}.")}
    own = {f"{part}.{name}": value for name, value in network.state_dict().items()}
    check_tensors(path, found, own, "export it again")
    network.load_state_dict({name.removeprefix(f"{part}."): value for name, value in found.items()})


def parts_of_job(path: str | Path, seed: int | None = None) -> tuple[dict[str, nn.Module], PromptNucSegOptions]:
    """Trained parts and options of a row of a finished run: `results/promptnucseg/<scale>/jobs/<table>/.../s1.json`.

    seed: one of the job's; None: its first. To be called in the folder of the run. Raises DataError for a row of
    another method, or one whose networks are not there.
    """
    job = read_job(path)
    if job.get("method") != METHOD:
        raise DataError(f"{path}: a job of {job.get('method', 'no method')}, expected a row of {METHOD}")
    stages = job["stages"].get(str(job["seeds"][0] if seed is None else seed))
    if stages is None:
        raise DataError(f"{path}: has no seed {seed}; its seeds are {', '.join(map(str, job['seeds']))}")
    for name, stage in stages.items():
        if not Path(stage["output"]).is_file():
            advice = f"run `python -m shared.run row {path}` in the folder of the run first"
            raise DataError(f"{path}: '{name}' is not trained yet ({stage['output']} is missing); {advice}")
    folders = {name: Path(stage["output"]).parent for name, stage in stages.items()}
    sam = load_stage_sam(folders["sam"]) if "sam" in folders else None
    parts: dict[str, nn.Module] = {
        name: load_part(folders[name], stage["recipe"], sam) for name, stage in stages.items() if name != "sam"
    }
    options = PromptNucSegOptions.model_validate(job["options"])
    return {**parts, **({"sam": sam} if sam else {})}, options
