"""Full, read-only and forbidden disks: one line that says which folder, how much and what to do."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import DataError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
ADVICE = "free some space or set REPLICATE_DATA to a folder on a larger disk"


class DiskFull(DataError):  # noqa: N818 (a UserError like the others of the house)
    """No room left: whatever was half-written must go."""


def megabytes(num_bytes: float) -> str:
    """Bytes as a person reads them."""
    return f"{num_bytes / 1e6:.1f} MB"


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise DiskFull, before anything is written, if `num_bytes` do not fit beside `folder`."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskFull(f"{what} needs {megabytes(num_bytes)} in {folder}, only {megabytes(free)} are free: {ADVICE}")


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn the operating system's "no space" and "not permitted" into one line for a person."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{what}: the disk of {folder} is full; {ADVICE}") from None
        if error.errno in _FORBIDDEN:
            raise DataError(f"{what}: cannot write to {error.filename or folder} ({error.strerror})") from None
        raise
