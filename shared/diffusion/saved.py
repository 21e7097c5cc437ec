"""Base of the track's own networks: saved and read as diffusers' models are (config.json and safetensors)."""

from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin


class SavedModel(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name their file; the first one's name is used
    """Constructors take `@register_to_config`; what they got is `config`, under the arguments' names. A submodule may
    not have the name of an argument: diffusers would give the argument in its place."""

    config: Any
