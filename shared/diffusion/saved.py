"""How the track's stages keep things: networks as diffusers' models are (config.json and safetensors), and a file that
says where a model is."""

import json
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

from shared.errors import DataError

SOURCE, DIFF = "source.json", "changed.safetensors"  # files of a stage: where its model is, and changed weights


class SavedModel(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name their file; the first one's name is used
    """Constructors take `@register_to_config`; what they got is `config`, under the arguments' names. A submodule may
    not have the name of an argument: diffusers would give the argument in its place."""

    config: Any


def read_source(folder: Path) -> dict[str, Any]:
    """What a stage's `SOURCE` says. Raises DataError for a folder without a readable one."""
    path = folder / SOURCE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: names no model ({error}); delete its folder and run the stage again") from None
    return found
