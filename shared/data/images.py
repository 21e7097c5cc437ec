"""Image data sets as arrays. numpy only; a loader needs the data on disk, not the network.

arrays = load_images("cifar10_jpeg", "train")      # pulls if needed, decodes once, then memory-maps
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.data import formats
from shared.data.cache import cached
from shared.data.decode import decode_all
from shared.data.digits import digits
from shared.data.manifest import IMAGE_LOADERS, Manifest, load_manifest, manifest_names
from shared.data.pull import pull, pulled_content
from shared.errors import ConfigError, nearest

SPLITS = ("train", "test")


@dataclass(frozen=True)
class ImageArrays:
    """images: (N, H, W, C) uint8, or float32 (digits); labels: (N,) int64 in 0..len(class_names)-1.

    Large sets are read-only memory maps: index them, or copy before changing them.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]


def load_images(name: str, split: str, root: Path | None = None, **options: Any) -> ImageArrays:
    """Images of data set `name`, split "train" or "test", in a fixed order.

    options: those of the data set's loader (only digits has any: see `shared.data.digits.digits`).
    Raises ConfigError with the nearest name for an unknown data set, split or option, DataError
    naming the file for damaged data.
    """
    if split not in SPLITS:
        raise ConfigError(f"data set '{name}' has no split '{split}', only train and test{nearest(split, [*SPLITS])}")
    manifest = load_manifest(name)
    if manifest.loader not in IMAGE_LOADERS:
        known = [other for other in manifest_names() if load_manifest(other).loader in IMAGE_LOADERS]
        raise ConfigError(f"'{name}' is no image data set; these are: {', '.join(known)}")
    loader = LOADERS[manifest.loader]
    _check_options(name, loader, options)
    folder = pull(name, root)
    return ImageArrays(*loader(manifest, folder, split, pulled_content(name, root), **options))


Arrays = tuple[np.ndarray, np.ndarray, list[str]]


def _cifar(_manifest: Manifest, folder: Path, split: str, _content: str) -> Arrays:
    # Not cached: reading the pickles takes half a second, the disk space of a copy is worth more.
    return formats.cifar_pickles(folder, split)


def _svhn(_manifest: Manifest, folder: Path, split: str, content: str) -> Arrays:
    return cached(folder, f"{content[:16]}-{split}", lambda _: formats.svhn_mat(folder, split))


def _tiny_imagenet(manifest: Manifest, folder: Path, split: str, content: str) -> Arrays:
    return _decoded(manifest, folder, split, content, formats.tiny_imagenet)


def _image_folder(manifest: Manifest, folder: Path, split: str, content: str) -> Arrays:
    return _decoded(manifest, folder, split, content, formats.image_folder)


def _decoded(
    manifest: Manifest,
    folder: Path,
    split: str,
    content: str,
    listing: Callable[[Path, str], formats.Listing],
) -> Arrays:
    def build(target: Path) -> Arrays:
        assert manifest.images is not None
        files = listing(folder, split)
        height, width, channels = manifest.images.shape
        images = decode_all(files.paths, (height, width, channels), target)
        return images, files.labels, files.class_names

    return cached(folder, f"{content[:16]}-{split}", build)


def _digits(_manifest: Manifest, folder: Path, split: str, _content: str, **options: Any) -> Arrays:
    return digits(folder, split, **options)


def _check_options(name: str, loader: Callable[..., Arrays], options: dict[str, Any]) -> None:
    known = [*inspect.signature(digits).parameters][2:] if loader is _digits else []
    for option in options:
        if option not in known:
            only = f"; it knows {', '.join(known)}" if known else "; it knows none"
            raise ConfigError(f"data set '{name}' has no option '{option}'{nearest(option, known)}{only}")


LOADERS: dict[str, Callable[..., Arrays]] = {
    "cifar_pickles": _cifar,
    "svhn_mat": _svhn,
    "tiny_imagenet": _tiny_imagenet,
    "image_folder": _image_folder,
    "digits": _digits,
}
