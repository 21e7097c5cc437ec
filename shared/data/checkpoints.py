"""Foreign checkpoints: weights only, never code. torch is imported inside the functions."""

import pickle
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.data.manifest import load_manifest
from shared.data.pull import pull
from shared.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def checkpoint_file(name: str, root: Path | None = None) -> Path:
    """Path of the pulled checkpoint `name` (a manifest with loader "checkpoint" and one file)."""
    manifest = load_manifest(name)
    if manifest.loader != "checkpoint" or len(manifest.files) != 1:
        raise ConfigError(f"'{name}' is no checkpoint but '{manifest.title}'")
    return pull(name, root) / manifest.files[0].target


def load_checkpoint(path: str | Path) -> "dict[str, torch.Tensor]":
    """Tensors of a checkpoint by name, on the CPU. Torch files are read with `weights_only=True`.

    A state dict wrapped in a training checkpoint is taken out of it; the prefix "module."
    (DataParallel) goes. Raises DataError naming the file if it is missing, damaged, holds code, or
    holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    return _state_dict(path, content)


def check_tensors(
    path: str | Path,
    tensors: "Mapping[str, torch.Tensor]",
    own: "Mapping[str, torch.Tensor]",
    advice: str,
    optional: Container[str] = (),
) -> None:
    """Compare a file's tensors with a model's own. optional: names that the file may leave out.

    Raises DataError naming the file and the first tensor that is missing, has another shape, or is unknown; `advice`
    says what to do, or what the file is.
    """
    for name, value in own.items():
        if name not in tensors:
            if name in optional:
                continue
            raise DataError(f"{path}: has no tensor '{name}'{nearest(name, set(tensors))}: {advice}")
        if tensors[name].shape != value.shape:
            shapes = f"{tuple(tensors[name].shape)}, this model wants {tuple(value.shape)}"
            raise DataError(f"{path}: '{name}' has shape {shapes}: {advice}")
    foreign = next((name for name in tensors if name not in own), None)
    if foreign is not None:
        raise DataError(f"{path}: tensor '{foreign}' is unknown to this model{nearest(foreign, set(own))}: {advice}")


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: damaged safetensors file ({error})") from None


def _torch_file(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        if first:
            raise DataError(
                f"{path}: holds more than weights ({first.strip()[:160]}) and could run code when loaded; refused"
            ) from None
        raise DataError(f"{path}: damaged, or no file of plain weights ({_cause(error)})") from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        raise DataError(f"{path}: damaged checkpoint ({_cause(error)})") from None


def _cause(error: Exception) -> str:
    """What a torch error says about the file; its advice to allow code stays out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "nsupported" in line or "nvalid" in line), lines[0])[:160]


def _state_dict(path: Path, content: Any) -> "dict[str, torch.Tensor]":
    import torch

    wrapper = next(
        (key for key in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)),
        None,
    )
    tensors = content[wrapper] if wrapper else content
    if not isinstance(tensors, dict) or not tensors:
        raise DataError(f"{path}: holds a {type(tensors).__name__}, expected tensors by name")
    other = next((key for key, value in tensors.items() if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        raise DataError(f"{path}: entry '{other}' is a {type(tensors[other]).__name__}, expected a tensor")
    return {str(key).removeprefix("module."): value for key, value in tensors.items()}
