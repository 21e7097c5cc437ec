"""Atomic writes and content digests: what every job relies on to survive kill -9."""

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is flushed to disk and renamed onto `target`.

    Nothing half-written is ever visible under the final name; on an error the temporary file is removed. What a
    killed writer of the same target has left is removed by the next one.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(target)
    temporary = target.with_name(f".{target.name}.{_NODE}-{os.getpid()}-{next(_SERIAL)}.part")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


_NODE = os.uname().nodename
_SERIAL = itertools.count()


def _remove_orphans(target: Path) -> None:
    """Remove temporary files of dead processes; those of other machines on a shared disk are not ours to judge."""
    for orphan in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(_NODE)}-*.part"):
        pid = orphan.name.rsplit("-", 2)[1]
        if pid.isdigit() and not _is_alive(int(pid)):
            orphan.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process, but a process
    return True


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write JSON atomically. NaN and infinity are refused: they are not JSON and hide failures."""
    write_text(target, json_text(value))


def json_text(value: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_if_changed(target: str | Path, value: Any) -> bool:
    """Write JSON only when the content differs, so that the file's time stamp means "changed"."""
    try:
        text = Path(target).read_text(encoding="utf-8")
        # Reading is ten times faster than writing with indents, and a plan of 56 papers compares 2,000 files. The
        # second comparison is for values that JSON changes, such as tuples.
        if json.loads(text) == value or text == json_text(value):
            return False
    except (FileNotFoundError, ValueError):
        pass  # absent or damaged: written anew
    write_json(target, value)
    return True


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value in canonical form: sorted keys, no spaces."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
