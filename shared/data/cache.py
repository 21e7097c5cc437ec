"""Decoded copies of a data set: memory-mapped arrays in `<data folder>/cache-v1/<key>/`.

The key carries the content digest and the split, so other content can never be served from an old
cache.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from shared.data.disk import disk_errors
from shared.data.verify import CACHE
from shared.files import write_json

Arrays = tuple[np.ndarray, np.ndarray, list[str]]


def cached(folder: Path, key: str, build: Callable[[Path], Arrays]) -> Arrays:
    """Arrays of `<folder>/cache-v1/<key>/`, built on first use; images: a read-only memory map.

    build(target) returns (images, labels, class_names); it may write the images to the .npy file
    `target` itself (a memory map of it) or return them in memory. Concurrent jobs wait for the one
    that builds. A killed build leaves a folder that the next build removes.
    """
    import filelock

    place = folder / CACHE / key
    if not place.is_dir():
        with disk_errors(f"decode {folder.name}", folder):
            place.parent.mkdir(exist_ok=True)
            with filelock.FileLock(place.parent / ".lock"):
                if not place.is_dir():
                    _build(place, build)
    images = np.load(place / "images.npy", mmap_mode="r")
    return (
        images,
        np.load(place / "labels.npy"),
        json.loads((place / "classes.json").read_text(encoding="utf-8")),
    )


def _build(place: Path, build: Callable[[Path], Arrays]) -> None:
    for stale in place.parent.glob("*.part"):
        shutil.rmtree(stale)
    temporary = place.with_name(f"{place.name}.part")
    temporary.mkdir()
    try:
        images, labels, class_names = build(temporary / "images.npy")
        if not (temporary / "images.npy").exists():
            np.save(temporary / "images.npy", images)
        np.save(temporary / "labels.npy", labels)
        write_json(temporary / "classes.json", class_names)
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
