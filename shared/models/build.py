"""Networks by name, and their weights on disk.

A name carries the variant: `resnet18_cifar` has the 3x3 stem without max-pool, `resnet18` the ImageNet stem. Every
network here has `normalize` (pixels in [0, 1] come in), `features(images) -> (B, D)` and a last linear layer `fc`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from shared.data.checkpoints import load_checkpoint
from shared.errors import ConfigError, DataError, nearest
from shared.files import atomic_path
from shared.models.all_cnn import all_cnn, all_cnn_half, all_cnn_mlp
from shared.models.normalize import Normalize
from shared.models.resnet_cifar import (
    resnet18_cifar,
    resnet18_cifar_dropout,
    resnet34_cifar_dropout,
    resnet50_cifar,
    resnet50_cifar_dropout,
)
from shared.models.resnet_he import resnet20_he, resnet56_he
from shared.models.tiny_cnn import TinyCNN
from shared.models.torchvision_nets import resnet18, resnet34, resnet50, vit_b_16
from shared.models.vgg import vgg16_bn_cifar, vgg_tiny

MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "all_cnn": all_cnn,
    "all_cnn_half": all_cnn_half,
    "all_cnn_mlp": all_cnn_mlp,
    "resnet18": resnet18,
    "resnet18_cifar": resnet18_cifar,
    "resnet18_cifar_dropout": resnet18_cifar_dropout,
    "resnet20_he": resnet20_he,
    "resnet34": resnet34,
    "resnet34_cifar_dropout": resnet34_cifar_dropout,
    "resnet50": resnet50,
    "resnet50_cifar": resnet50_cifar,
    "resnet50_cifar_dropout": resnet50_cifar_dropout,
    "resnet56_he": resnet56_he,
    "tiny_cnn": TinyCNN,
    "vgg16_bn_cifar": vgg16_bn_cifar,
    "vgg_tiny": vgg_tiny,
    "vit_b_16": vit_b_16,
}


def build(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """A freshly initialised network on the CPU.

    mean, std: normalisation per channel, put inside the model (both or none). seed: initialises the
    weights without touching the global random state; None draws from the global state.
    """
    if name not in MODELS:
        hint = nearest(name, list(MODELS))
        raise ConfigError(f"model '{name}' is unknown{hint}; known: {', '.join(sorted(MODELS))}")
    if (mean is None) != (std is None):
        raise ConfigError(f"model '{name}': normalisation needs both mean and std")
    # Weights are drawn on the CPU whatever the device of the run: the same seed is the same network
    # everywhere.
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        model = MODELS[name](num_classes, in_channels)
    if mean is not None and std is not None:
        if not len(mean) == len(std) == in_channels:
            found = f"mean has {len(mean)}, std {len(std)} values"
            raise ConfigError(f"model '{name}' has {in_channels} channels but {found}")
        model.normalize = Normalize(mean, std)
    return model


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write the weights and buffers atomically as safetensors."""
    state = model.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load_model(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill `model` in place with the weights at `path`, all of which must match; returns it."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such model file; run the stage that makes it") from None
    except (SafetensorError, OSError) as error:
        advice = "delete it and run its stage again"
        raise DataError(f"{path}: not a readable model file ({error}); {advice}") from None
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            raise DataError(f"{path}: has no weights '{name}': it belongs to another model")
        if name not in own:
            hint = nearest(name, list(own))
            raise DataError(f"{path}: weights '{name}' are unknown to this model{hint}")
        if own[name].shape != tensors[name].shape:
            wanted, found = tuple(own[name].shape), tuple(tensors[name].shape)
            raise DataError(f"{path}: '{name}' has shape {found}, this model wants {wanted}")
    model.load_state_dict(tensors)
    return model


# Heads of published checkpoints: another task's classes. The names of this library and of torchvision.
HEADS = ("fc.", "classifier.", "head.", "heads.")


def load_pretrained(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill the backbone of `model` in place with a published checkpoint; returns the model.

    Weights match by name. The head (HEADS) stays as it is, and so do the parts that the network names in `fresh`
    (prefixes; a 3x3 stem cannot take a 7x7 one's weights). Raises DataError naming the file and the first weight
    that has no counterpart or another shape.
    """
    own, tensors = model.state_dict(), load_checkpoint(path)
    skipped = HEADS + tuple(getattr(model, "fresh", ()))
    wanted = {name for name in own if not name.startswith(skipped)}
    found = {name: value for name, value in tensors.items() if not name.startswith(skipped)}
    for name in sorted(wanted | found.keys()):
        # counts of seen batches: absent from checkpoints before torch 0.4.1, and read by nothing here
        if name not in found and not name.endswith("num_batches_tracked"):
            raise DataError(f"{path}: has no weights '{name}': it belongs to another network{_hint(name, found)}")
        if name not in wanted:
            raise DataError(f"{path}: weights '{name}' are unknown to this network{_hint(name, wanted)}")
        if name in found and own[name].shape != found[name].shape:
            shapes = f"shape {tuple(found[name].shape)}, this network wants {tuple(own[name].shape)}"
            raise DataError(f"{path}: '{name}' has {shapes}")
    model.load_state_dict(found, strict=False)
    return model


def _hint(name: str, known: Iterable[str]) -> str:
    return nearest(name, list(known))
