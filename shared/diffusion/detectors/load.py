"""Detectors from their options, loaded when a run first needs them."""

from pathlib import Path

import torch

from shared.data.manifest import load_manifest, manifest_names
from shared.data.pull import pull
from shared.diffusion.detectors.judge import Detector
from shared.diffusion.detectors.options import DetectorOptions
from shared.errors import ConfigError, DataError


def load_detector(
    options: DetectorOptions,
    device: torch.device | str = "cpu",
    root: Path | None = None,
    *,
    classifier: Path | None = None,
) -> Detector:
    """The detector that `options` describe; classifier: folder of the one that the task trains.

    Raises ConfigError or DataError naming what is missing.
    """
    from shared.diffusion.detectors import networks

    if options.checkpoint is None and classifier is None:
        raise ConfigError("a detector of kind 'shapes' needs a checkpoint: the task's model has no classifier")
    folder = classifier if options.checkpoint is None and classifier else _place(options.checkpoint or "", root)
    if options.kind == "transformers":
        return networks.transformers_detector(folder, options.batch, device)
    if options.kind == "torchvision":
        return networks.torchvision_detector(_file(folder), options.architecture or "", options.batch, device)
    if options.kind == "q16":
        from shared.diffusion.detectors.q16 import q16_detector

        return q16_detector(folder, _file(_place(options.prompts or "", root)), options.batch, device)
    if options.kind == "nudenet":
        from shared.diffusion.detectors.nudenet import nudenet_detector

        return nudenet_detector(_file(folder))
    return networks.shapes_detector(folder, options.head or "", options.batch, device)


def detector_manifests(options: DetectorOptions) -> list[str]:
    """Names of the manifests that the detector needs; places on the disk are none."""
    named = [options.checkpoint, options.prompts]
    return [name for name in named if name and name in manifest_names()]


def _place(source: str, root: Path | None) -> Path:
    """A path as it is, else the pulled manifest of that name (which says what is near an unknown one)."""
    if Path(source).exists():
        return Path(source)
    load_manifest(source)
    return pull(source, root)


def _file(place: Path) -> Path:
    """The file itself, or the only file of a folder that data can be read from."""
    if place.is_file():
        return place
    found = [path for path in sorted(place.iterdir()) if path.suffix in {".pth", ".safetensors", ".onnx", ".p", ".npy"}]
    if len(found) != 1:
        raise DataError(f"{place}: holds {len(found)} files of weights, expected one")
    return found[0]
