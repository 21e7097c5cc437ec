"""Pull a data set: mirror or network, verified archive, verified content, `resources/<name>/`.

Steps and what a kill -9 leaves behind. All work happens in `<root>/.pull/<name>/` under a file
lock: `downloads/` (partial files: continued next time), `tree/` (half unpacked: thrown away),
`record.json` (written when `tree/` is complete and verified). Then `tree/` is renamed to
`<root>/<name>/`, and `pulled.json` is written last.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from shared.data.collect import collect
from shared.data.disk import DiskFull, disk_errors, megabytes
from shared.data.manifest import Manifest, load_manifest
from shared.data.verify import CACHE, MARKER, check_content, content_digest, tree_entries
from shared.errors import DataError
from shared.files import write_json

log = logging.getLogger(__name__)
SCHEMA = 1


def data_root() -> Path:
    """Folder of all pulled data: REPLICATE_DATA, or `resources` below the working folder."""
    return Path(os.environ.get("REPLICATE_DATA") or "resources")


def pull(name: str, root: Path | None = None) -> Path:
    """Folder of the verified, unpacked data set; fetched if it is not there yet.

    Idempotent, safe to run twice at once and to kill at any moment. Raises ConfigError (no or bad
    manifest) or DataError (not available, damaged, disk full) with one line that says what to do.
    """
    manifest = load_manifest(name)
    root = root or data_root()
    folder = root / name
    if _marker(folder, manifest) is None:
        with disk_errors(f"pull {name}", root):
            work = root / ".pull" / name
            work.mkdir(parents=True, exist_ok=True)
            with _locked(work / "lock", name):
                if _marker(folder, manifest) is None:
                    _pull_locked(manifest, folder, work)
    return folder


def pulled_content(name: str, root: Path | None = None) -> str:
    """Content digest of a pulled data set, for provenance and cache keys. Raises DataError if it is
    not pulled.
    """
    folder = (root or data_root()) / name
    record = _marker(folder, load_manifest(name))
    if record is None:
        raise DataError(f"{folder} is not pulled; run: python -m shared.data pull {name}")
    return str(record["content"])


def verify(name: str, root: Path | None = None) -> str:
    """Read every file of a pulled data set again; returns its content digest. Raises DataError if a
    byte differs.
    """
    manifest = load_manifest(name)
    folder = (root or data_root()) / name
    expected = pulled_content(name, root)
    found = check_content(manifest, tree_entries(folder), str(folder))
    if found != expected:
        raise DataError(f"{folder}: content was {expected} when pulled, is now {found}; delete it and pull again")
    return found


def _marker(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """The record of a finished pull of this very content, else None."""
    return _record(folder / MARKER, manifest)


def _record(path: Path, manifest: Manifest) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same = record["schema"] == SCHEMA and record["identity"] == manifest.identity() and "content" in record
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return record if same else None


def _locked(path: Path, name: str) -> Any:
    import filelock

    lock = filelock.FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("%s: waiting for another pull of it", name)
        return lock.acquire()


def _pull_locked(manifest: Manifest, folder: Path, work: Path) -> None:
    tree, receipt = work / "tree", work / "record.json"
    record = _record(receipt, manifest)
    if record is None or not tree.is_dir():
        if record := _adopt(manifest, folder, record):
            _finish(folder, work, record)
            return
        _refuse_foreign(manifest, folder)
        record = _build(manifest, work)
        write_json(receipt, record)
    _install(tree, folder, work)
    _finish(folder, work, record)
    log.info(
        "%s: %d files, %s in %s",
        manifest.name,
        record["num_files"],
        megabytes(record["num_bytes"]),
        folder,
    )


def _finish(folder: Path, work: Path, record: dict[str, Any]) -> None:
    write_json(folder / MARKER, record)
    for leftover in ("old", "downloads"):
        shutil.rmtree(work / leftover, ignore_errors=True)


def _adopt(manifest: Manifest, folder: Path, record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Record for a complete folder whose marker is missing (a kill, or the workflow removed it)."""
    expected = record["content"] if record else manifest.content.sha256
    if expected is None or not _has_data(folder):
        return None
    entries = tree_entries(folder)
    if content_digest(entries) != expected:
        return None
    return record or _new_record(manifest, folder, entries, [])


def _has_data(folder: Path) -> bool:
    return folder.is_dir() and any(path.name not in {MARKER, CACHE} for path in folder.iterdir())


def _refuse_foreign(manifest: Manifest, folder: Path) -> None:
    """A folder that this package did not fill is never replaced."""
    if _has_data(folder) and not (folder / MARKER).exists():
        raise DataError(
            f"{folder} holds files that are not the data set {manifest.name} (or damaged ones);"
            " move it away and pull again"
        )


def _install(tree: Path, folder: Path, work: Path) -> None:
    old = work / "old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(tree, folder)


def _build(manifest: Manifest, work: Path) -> dict[str, Any]:
    """Fill `work/tree` with verified content; returns the record. On a full disk nothing
    half-written stays.
    """
    tree, downloads = work / "tree", work / "downloads"
    (work / "record.json").unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    downloads.mkdir(exist_ok=True)
    done = False
    try:
        with disk_errors(f"pull {manifest.name}", work.parent.parent):
            entries, sources = collect(manifest, tree, downloads)
            what = " and ".join(sorted({source["from"] for source in sources}))
            try:
                check_content(manifest, entries, what)
            except DataError:
                shutil.rmtree(downloads)  # unverifiable on their own, and wrong: do not use them again
                raise
        done = True
        return _new_record(manifest, tree, entries, sources)
    except DiskFull:
        shutil.rmtree(downloads, ignore_errors=True)
        raise
    finally:
        if not done:
            shutil.rmtree(tree, ignore_errors=True)


def _new_record(
    manifest: Manifest, folder: Path, entries: dict[str, str], sources: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "identity": manifest.identity(),
        "content": content_digest(entries),
        "num_files": len(entries),
        "num_bytes": sum((folder / path).stat().st_size for path in entries),
        "sources": sources,
    }
