"""Safe unpacking: archives are hostile until their content digest says otherwise.

Only plain files are taken; nothing of an archive's owners, modes, links or devices reaches the
disk. Every member is written by this module into a fresh folder with "create new" semantics, and
hashed on the way.
"""

import fnmatch
import gzip
import hashlib
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from shared.data.manifest import Download
from shared.errors import DataError

_BLOCK = 1 << 20
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
)


class Budget:
    """How much an archive may still unpack: bytes and files, over all archives of a data set."""

    def __init__(self, max_bytes: int, max_files: int | None) -> None:
        self.max_bytes, self.max_files = max_bytes, max_files
        self.num_bytes = self.num_files = 0

    def take_file(self, archive: str) -> None:
        """Count one more file."""
        self.num_files += 1
        if self.max_files is not None and self.num_files > self.max_files:
            raise DataError(f"{archive}: more than the {self.max_files} files that the manifest states; not unpacked")

    def take_bytes(self, num_bytes: int, archive: str) -> None:
        """Count bytes about to be written."""
        self.num_bytes += num_bytes
        if self.num_bytes > self.max_bytes:
            raise DataError(
                f"{archive}: unpacks to more than the {self.max_bytes} bytes that the manifest"
                " states"
                " (an archive bomb, or content.max_bytes is too small)"
            )


def unpack(path: Path, form: Download, tree: Path, budget: Budget, members: set[str] | None) -> dict[str, str]:
    """Unpack `path` into the folder `tree`; returns path -> sha256 of each file written.

    members: folders or files to take (None: all). Raises DataError naming archive and member for
    anything that is not a plain file with a harmless path, for a damaged archive, and beyond the
    budget.
    """
    with _damage(path):
        if form.unpack == "tar":
            return _unpack_tar(path, _Selection(form, members), tree, budget)
        if form.unpack == "zip":
            return _unpack_zip(path, _Selection(form, members), tree, budget)
        budget.take_file(path.name)
        with _opened(path, form) as stream:
            return {form.target: _write(stream, tree / form.target, budget, path.name)}


def _opened(path: Path, form: Download) -> IO[bytes]:
    """The bytes of a single file, decompressed."""
    if form.unpack == "xz":
        return lzma.open(path)
    if form.unpack == "gz":
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: damaged archive ({reason}); delete it and pull again") from None


class _Selection:
    """Which members of an archive are taken, and under which path."""

    def __init__(self, form: Download, members: set[str] | None) -> None:
        self.form, self.members = form, members
        self.patterns = [re.compile(fnmatch.translate(pattern)) for pattern in form.keep]

    def path_of(self, archive: str, member: str) -> str | None:
        """Path inside the data folder, None if not wanted; DataError if it points outside."""
        parts = [part for part in member.split("/") if part not in {"", "."}]
        if member.startswith("/") or ".." in parts or "\\" in member or "\0" in member or re.match(r"\w:", member):
            raise DataError(f"{archive}: member '{member}' points outside the data folder; archive refused")
        parts = parts[self.form.strip :]
        path = "/".join(parts)
        if not parts or (self.patterns and not any(pattern.match(path) for pattern in self.patterns)):
            return None
        if self.members is not None and not any("/".join(parts[:n]) in self.members for n in range(len(parts), 0, -1)):
            return None
        return path


def _unpack_tar(path: Path, selection: _Selection, tree: Path, budget: Budget) -> dict[str, str]:
    entries: dict[str, str] = {}
    # "r|*" reads front to back: seeking in a compressed archive would decompress it again for each
    # member.
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            target = selection.path_of(path.name, member.name)
            if target is None or member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{path.name}: member '{member.name}' is a link or device; archive refused")
            _second_opinion(member, path)
            stream = archive.extractfile(member)
            if stream is None:
                raise DataError(f"{path.name}: member '{member.name}' has no data; archive refused")
            budget.take_file(path.name)
            entries[target] = _write(stream, tree / target, budget, path.name)
    return entries


def _second_opinion(member: tarfile.TarInfo, path: Path) -> None:
    """The library's own checks beside ours. No link was let in, so a nominal folder gives the same verdict and saves a
    dozen lstat calls a file."""
    if not hasattr(tarfile, "data_filter"):  # Python before 3.11.4, Debian 12's for one
        return
    try:
        tarfile.data_filter(member, "/data")
    except tarfile.FilterError as error:
        raise DataError(f"{path.name}: {error}; archive refused") from None


def _unpack_zip(path: Path, selection: _Selection, tree: Path, budget: Budget) -> dict[str, str]:
    entries: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            # orig_filename: `filename` is already tidied up and would hide what the archive says.
            target = selection.path_of(path.name, member.orig_filename)
            if target is None or member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in {0, stat.S_IFREG}:
                raise DataError(f"{path.name}: member '{member.filename}' is a link or device; archive refused")
            if member.flag_bits & 1:
                raise DataError(f"{path.name}: member '{member.filename}' is encrypted; archive refused")
            budget.take_file(path.name)
            try:
                with archive.open(member) as stream:
                    entries[target] = _write(stream, tree / target, budget, path.name)
            except NotImplementedError as error:
                raise DataError(f"{path.name}: member '{member.filename}': {error}") from None
    return entries


def _write(stream: IO[bytes], target: Path, budget: Budget, archive: str) -> str:
    """Copy a stream into the new file `target`; returns its sha256."""
    checksum = hashlib.sha256()
    try:
        out = target.open("xb")
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{archive}: '{target.name}' appears twice; archive refused") from None
    with out:
        while block := stream.read(_BLOCK):
            budget.take_bytes(len(block), archive)
            checksum.update(block)
            out.write(block)
    return checksum.hexdigest()
