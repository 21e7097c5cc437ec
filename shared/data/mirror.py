"""DATA_MIRROR: a local folder that is looked at before any address."""

import os
import shutil
from pathlib import Path

from shared.data.manifest import Download, Manifest
from shared.data.verify import check_content, mismatch, tree_entries
from shared.errors import DataError

VARIABLE = "DATA_MIRROR"


def mirror_folder() -> Path | None:
    """The mirror, or None if the variable is not set. Raises DataError if it names no folder."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    if not Path(value).is_dir():
        raise DataError(f"{VARIABLE}={value} is no folder; correct or unset it")
    return Path(value)


def find_file(mirror: Path, name: str, form: Download) -> Path | None:
    """The mirror's copy of a file of data set `name`, verified if it is pinned. A wrong one raises
    DataError: falling through to the network would hide that the mirror is damaged.
    """
    places = [form.mirror] if form.mirror else []
    for place in [*places, f"{name}/{form.name}", form.name]:
        path = mirror / place
        if path.is_file():
            if wrong := mismatch(path, form):
                raise DataError(f"{path}: {wrong}; replace this file of the mirror, or unset {VARIABLE} to download")
            return path
    return None


def copy_tree(mirror: Path, manifest: Manifest, tree: Path) -> dict[str, str] | None:
    """Copy a data set that lies unpacked in `<mirror>/<data set>/`, verified by its content digest.

    Returns path -> sha256, or None if there is no such folder or nothing to verify it by.
    """
    folder = mirror / manifest.name
    if manifest.content.sha256 is None or not folder.is_dir():
        return None
    check_content(manifest, tree_entries(folder), f"the mirror's folder {folder}")
    shutil.copytree(folder, tree, dirs_exist_ok=True)
    return tree_entries(tree)
