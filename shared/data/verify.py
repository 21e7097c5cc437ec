"""Digests: of a downloaded file, and of the unpacked content."""

import hashlib
from pathlib import Path

from shared.data.manifest import Download, Manifest
from shared.errors import DataError
from shared.files import file_sha256

MARKER = "pulled.json"
CACHE = "cache-v1"
_OURS = {MARKER, CACHE}  # what this package adds beside the data, at the top of a data folder


def file_md5(path: Path) -> str:
    """MD5 (hex) of a file: guards against damage, not against forgery."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def mismatch(path: Path, form: Download) -> str | None:
    """What is wrong with the bytes of `path` (expected and found), or None."""
    size = path.stat().st_size
    if form.sha256:
        found = file_sha256(path)
        return None if found in form.sha256 else f"sha256 expected {' or '.join(form.sha256)}, found {found}"
    if form.md5:
        found = file_md5(path)
        return None if found in form.md5 else f"md5 expected {' or '.join(form.md5)}, found {found}"
    if form.size is not None and size != form.size:
        return f"size expected {form.size} bytes, found {size}"
    return None


def content_digest(entries: dict[str, str]) -> str:
    """Digest of a tree: SHA-256 over the lines `<sha256>  <path>`, sorted by the bytes of the path.

    entries: relative posix path -> sha256 (hex) of the file. The same number in a shell, inside the
    folder: `find * -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`.
    """
    total = hashlib.sha256()
    for path in sorted(entries, key=str.encode):
        total.update(f"{entries[path]}  {path}\n".encode())
    return total.hexdigest()


def tree_entries(folder: Path) -> dict[str, str]:
    """path -> sha256 of every file below `folder`, without the marker and the caches. Links raise
    DataError.
    """
    entries = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] in _OURS:
            continue
        if path.is_symlink():
            raise DataError(f"{path}: is a link; a data folder holds plain files only")
        if path.is_file():
            entries[relative.as_posix()] = file_sha256(path)
    return entries


def check_content(manifest: Manifest, entries: dict[str, str], what: str) -> str:
    """Content digest of `entries`, compared with the manifest. `what` names the origin in the
    DataError.
    """
    found = content_digest(entries)
    content = manifest.content
    if content.num_files is not None and len(entries) != content.num_files:
        raise DataError(f"{manifest.name}: {what} holds {len(entries)} files, expected {content.num_files}")
    if content.sha256 is not None and found != content.sha256:
        raise DataError(f"{manifest.name}: content of {what} differs: expected {content.sha256}, found {found}")
    return found
