"""Pipeline folders in the layout of Stable Diffusion: read, checked and written part by part.

    model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/

The small world of this repository and Stable Diffusion 1.x are read by the same lines. Nothing is fetched here: a
checkpoint is a manifest with a pinned revision, pulled by `shared.data`. Code that a repository ships is never run,
pickled weights are read as weights only, and a safety checker in the folder stays on the disk: what an image shows is
decided by detectors.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from shared.data.manifest import manifest_names
from shared.data.pull import pull
from shared.diffusion.world.autoencoder import LinearAutoencoder
from shared.errors import ConfigError, DataError, named_reason, nearest

INDEX = "model_index.json"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def pipeline_folder(source: str | Path, root: Path | None = None) -> Path:
    """Folder of a pipeline: `source` itself if it is one, else the manifest of that name, pulled.

    Raises ConfigError for a name without manifest (a hub repository is not taken as it is: without a pinned revision
    its content could change), DataError if the files are not available.
    """
    folder = Path(source)
    if (folder / INDEX).is_file():
        return folder
    name = str(source)
    if name in manifest_names():
        return pull(name, root)
    if folder.is_dir():
        raise DataError(f"{folder}: holds no {INDEX}, so no pipeline in the layout of diffusers")
    raise ConfigError(
        f"pipeline '{name}' is neither a folder nor a manifest{nearest(name, manifest_names())}; "
        "for a hub repository write data_manifests/<name>.yaml with its commit"
    )


def read_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The five parts of a pipeline folder by name; models on the CPU, in eval mode, without gradients."""
    index = _index(folder)
    return {part: _read_part(folder, part, index[part], dtype) for part in PARTS}


def write_parts(parts: Mapping[str, Any], folder: str | Path) -> None:
    """Write parts into `folder`, which then replaces an older one; a killed save leaves the old folder, or none."""
    folder = Path(folder)
    part_folder = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part_folder, ignore_errors=True)
    part_folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    for name in PARTS:
        part = parts[name]
        part.save_pretrained(part_folder / name)
        index[name] = _named(part)
    index.update(safety_checker=[None, None], feature_extractor=[None, None])
    (part_folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(part_folder, folder)
    shutil.rmtree(old, ignore_errors=True)


def _named(part: Any) -> list[str]:
    """Library and class as diffusers looks them up."""
    import transformers

    library, name = type(part).__module__.split(".")[0], type(part).__name__
    if isinstance(part, transformers.PreTrainedTokenizerFast) and not isinstance(part, transformers.CLIPTokenizer):
        name = "PreTrainedTokenizerFast"  # has another name in later releases, and this one in all
    return [library if library in ("diffusers", "transformers") else type(part).__module__, name]


def _index(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of every part."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {part: (str(index[part][0]), str(index[part][1])) for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: does not name the parts {', '.join(PARTS)} ({named_reason(error)})") from None


def _read_part(folder: Path, part: str, named: tuple[str, str], dtype: torch.dtype) -> Any:
    where = folder / part
    if not where.is_dir():
        raise DataError(f"{where}: no such folder, though {INDEX} names it")
    cls = _class_of(folder, part, *named)
    try:
        if part in ("tokenizer", "scheduler"):
            return cls.from_pretrained(where, local_files_only=True)
        # transformers calls it dtype, diffusers torch_dtype
        kind = {"dtype" if part == "text_encoder" else "torch_dtype": dtype}
        model, info = cls.from_pretrained(where, local_files_only=True, output_loading_info=True, **kind)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{where}: no {cls.__name__} can be read ({named_reason(error)})") from None
    for what in ("missing_keys", "mismatched_keys"):
        if found := sorted(str(key) for key in info[what]):
            raise DataError(f"{where}: {len(found)} weights of the model are {what[:-5]}, first {found[0]}")
    return model.eval().requires_grad_(False)


def _class_of(folder: Path, part: str, library: str, name: str) -> Any:
    """The class that the index names, if this part may be of it."""
    import diffusers
    import transformers

    if part == "tokenizer":
        return transformers.CLIPTokenizer if name.startswith("CLIPTokenizer") else transformers.PreTrainedTokenizerFast
    if part == "scheduler" and name.endswith("Scheduler") and hasattr(diffusers, name):
        return getattr(diffusers, name)
    known = {
        "unet": {"UNet2DConditionModel": lambda: diffusers.UNet2DConditionModel},
        "vae": {"AutoencoderKL": lambda: diffusers.AutoencoderKL, "LinearAutoencoder": lambda: LinearAutoencoder},
        "text_encoder": {"CLIPTextModel": lambda: transformers.CLIPTextModel},
    }.get(part, {})
    if name not in known:
        readable = ", ".join(known) or "a scheduler of diffusers"
        raise DataError(f"{folder / INDEX}: {part} is a {name} of {library}; readable here: {readable}")
    return known[name]()
