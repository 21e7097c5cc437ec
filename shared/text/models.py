"""Causal language models and tokenizers, from a local folder or a pulled manifest.

Every model enters through AutoModelForCausalLM, tiny ones too. Code that a repository ships is never
run (`trust_remote_code` stays off) and pickled weights are read as weights only. Nothing is fetched
here: a checkpoint is a manifest with a pinned revision, pulled by `shared.data`, and read from its
folder. torch and transformers are imported inside the functions, so protocols may use `LoraOptions`.
"""

import copy
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from shared.data.manifest import manifest_names
from shared.data.pull import pull
from shared.errors import ConfigError, DataError, named_reason, nearest
from shared.options import Count, Options, Positive

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
Precision = Literal["float32", "bfloat16", "float16"]


class LoraOptions(Options):
    """Low-rank adaptation (peft). r: rank; alpha: the update is scaled by alpha / r; dropout: before
    the adapters; target_modules: last parts of the names of the adapted layers, None for those that
    peft knows for the architecture, "all-linear" for every linear layer but the output."""

    r: Count = 8
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | Literal["all-linear"] | None = None


def model_folder(source: str | Path, root: Path | None = None) -> Path:
    """Folder of a model: `source` itself if it is one, else the manifest of that name, pulled.

    Raises ConfigError for a name without manifest (a hub repository is not taken as it is: without
    a pinned revision its content could change), DataError if the files are not available.
    """
    folder = Path(source)
    if (folder / "config.json").is_file() or (folder / "tokenizer_config.json").is_file():
        return folder
    name = str(source)
    if name in manifest_names():
        return pull(name, root)
    if folder.is_dir():
        raise DataError(f"{folder}: holds no config.json, so no model that transformers can read")
    raise ConfigError(
        f"model '{name}' is neither a folder nor a manifest{nearest(name, manifest_names())}; "
        "for a hub repository write data_manifests/<name>.yaml with its commit"
    )


def load_model(
    source: str | Path, *, dtype: Precision = "float32", lora: LoraOptions | None = None, root: Path | None = None
) -> "PreTrainedModel":
    """Model on the CPU, in eval mode; with `lora`, only its fresh adapters train.

    Raises DataError, in one line with the folder, if weights are damaged, of another shape, missing
    (transformers would fill them at random and only warn), or need code of the repository.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = model_folder(source, root)
    try:
        # with output_loading_info a pair comes back, which the library's annotations do not say
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{folder}: no causal language model can be read ({named_reason(error)})") from None
    model, info = loaded
    for what in ("missing_keys", "mismatched_keys"):
        if found := sorted(str(key) for key in info[what]):
            raise DataError(f"{folder}: {len(found)} weights of the model are {what[:-5]}, first {found[0]}")
    if info["unexpected_keys"]:
        log.warning("%s: %d weights have no place in the model", folder, len(info["unexpected_keys"]))
    model.eval()
    return model if lora is None else _with_lora(model, lora)


def load_tokenizer(source: str | Path, root: Path | None = None) -> "PreTrainedTokenizerBase":
    """Tokenizer of a folder or manifest. Raises DataError if it has none: some published checkpoints
    hold weights only, and take the tokenizer of the model that they started from."""
    from transformers import AutoTokenizer

    folder = model_folder(source, root)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise DataError(f"{folder}: holds no tokenizer; name the base model as the tokenizer's source")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{folder}: the tokenizer cannot be read ({named_reason(error)})") from None


def save_model(model: Any, tokenizer: Any, folder: str | Path, *, merge: bool = True) -> None:
    """Write model (safetensors) and tokenizer into `folder`, which then replaces an older one.

    merge: a model with LoRA adapters is written as a plain one with the adapters added in (on a
    copy, so training can go on); otherwise only the adapters are written. A killed save leaves the
    old folder, or none, never a half.
    """
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _merged(model, merge).save_pretrained(part)
    tokenizer.save_pretrained(part)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def has_adapters(model: Any) -> bool:
    """Whether a model carries LoRA adapters."""
    return hasattr(model, "merge_and_unload")


def num_parameters(model: Any, *, trainable: bool = False) -> int:
    """Parameters, shared ones counted once; `trainable`: only those that an optimizer may move."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _with_lora(model: Any, options: LoraOptions) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # a ratio; peft only divides by r
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"lora.target_modules: {named_reason(error)}") from None
    adapted.eval()
    return adapted


def _merged(model: Any, merge: bool) -> Any:
    return copy.deepcopy(model).merge_and_unload() if merge and has_adapters(model) else model
