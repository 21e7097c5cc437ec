"""Hostile and damaged archives."""

import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from shared.data.manifest import Download
from shared.data.unpack import Budget, unpack
from shared.data.verify import content_digest, tree_entries
from shared.errors import DataError


def run(path: Path, tree: Path, max_bytes: int = 10_000, max_files: int | None = None, **form: Any) -> dict[str, str]:
    tree.mkdir(exist_ok=True)
    kind = (
        {".zip": "zip", ".xz": "xz", ".gz": "gz"}.get(path.suffix, "tar")
        if "unpack" not in form
        else form.pop("unpack")
    )
    members = form.pop("members", None)
    return unpack(
        path,
        Download(name=path.name, unpack=kind, **form),
        tree,
        Budget(max_bytes, max_files),
        members,
    )


def tar_with(path: Path, *members: tarfile.TarInfo, content: bytes = b"data") -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_tar_and_digest_agree_with_the_disk(tmp_path: Path, tar: Any, compression: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"b/x": b"1", "a": b"22", "b/y": b""}, compression))
    entries = run(path, tmp_path / "tree")
    assert entries == tree_entries(tmp_path / "tree")
    assert (tmp_path / "tree/b/x").read_bytes() == b"1"


def test_content_digest_is_the_documented_shell_pipeline(tmp_path: Path) -> None:
    import subprocess

    for name in ("B/x.txt", "a b.txt", "B.txt", "é.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    pipeline = "find * -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    shell = subprocess.run(pipeline, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert content_digest(tree_entries(tmp_path)) == shell.split()[0]


def test_strip_keep_and_members_select(tmp_path: Path, tar: Any) -> None:
    path = tmp_path / "a.tar"
    files = {
        "top-abc/README": b"r",
        "top-abc/train/1/a.jpg": b"a",
        "top-abc/train/2/b.jpg": b"b",
        "top-abc/x.jpg": b"x",
    }
    path.write_bytes(tar(files))
    kept = run(path, tmp_path / "t1", strip=1, keep=["train/*.jpg"])
    assert sorted(kept) == ["train/1/a.jpg", "train/2/b.jpg"]
    assert sorted(run(path, tmp_path / "t2", strip=1, members={"train/2"})) == ["train/2/b.jpg"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:/x", "a\\..\\x"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_with(path, member("ok"), member(name))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ok", "data")
            archive.writestr(name, "data")
    with pytest.raises(DataError, match="points outside the data folder"):
        run(path, tmp_path / "tree")
    assert not (tmp_path / "x").exists()
    assert not Path("/etc/x").exists()


@pytest.mark.parametrize(
    "hostile",
    [
        member("l", tarfile.SYMTYPE, "/etc/passwd"),
        member("l", tarfile.SYMTYPE, "ok"),
        member("l", tarfile.LNKTYPE, "ok"),
        member("d", tarfile.CHRTYPE),
        member("b", tarfile.BLKTYPE),
        member("p", tarfile.FIFOTYPE),
    ],
    ids=["symlink out", "symlink in", "hardlink", "char device", "block device", "pipe"],
)
def test_links_and_devices(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    with pytest.raises(DataError, match="link or device"):
        run(tar_with(tmp_path / "a.tar", member("ok"), hostile), tmp_path / "tree")


def test_zip_symlink(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("l")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        run(tmp_path / "a.zip", tmp_path / "tree")


def test_member_given_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="appears twice"):
        run(tar_with(tmp_path / "a.tar", member("x"), member("x")), tmp_path / "tree")


def test_file_below_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="appears twice"):
        run(tar_with(tmp_path / "a.tar", member("x"), member("x/y")), tmp_path / "tree")


def test_modes_and_owners_of_the_archive_are_ignored(tmp_path: Path) -> None:
    info = member("x")
    info.mode, info.uid = 0o6777, 12345
    run(tar_with(tmp_path / "a.tar", info), tmp_path / "tree")
    assert not (tmp_path / "tree/x").stat().st_mode & 0o6111
    assert (tmp_path / "tree/x").stat().st_uid != 12345


@pytest.mark.parametrize("kind", ["tar", "zip", "xz", "gz"])
def test_bombs_stop_at_the_stated_size(tmp_path: Path, tar: Any, kind: str) -> None:
    zeros = bytes(20 << 20)
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        path.write_bytes(tar({"zeros": zeros}))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
    else:
        path.write_bytes(lzma.compress(zeros) if kind == "xz" else gzip.compress(zeros))
    with pytest.raises(DataError, match="unpacks to more than the 10000 bytes"):
        run(path, tmp_path / "tree")
    assert sum(p.stat().st_size for p in (tmp_path / "tree").rglob("*")) <= 10_000


def test_too_many_files(tmp_path: Path, tar: Any) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({str(n): b"" for n in range(100)}))
    with pytest.raises(DataError, match="more than the 10 files"):
        run(path, tmp_path / "tree", max_files=10)


@pytest.mark.parametrize("kind", ["tar", "zip", "xz", "gz"])
@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_damaged_archives_are_named(tmp_path: Path, tar: Any, kind: str, damage: str) -> None:
    import os

    noise = os.urandom(5000)
    path = tmp_path / f"a.{kind}"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x", noise)
    whole = {
        "tar": tar({"x": noise}, "xz"),
        "zip": stream.getvalue(),
        "xz": lzma.compress(noise),
        "gz": gzip.compress(noise),
    }
    path.write_bytes({"cut": whole[kind][:3000], "junk": b"no archive at all" * 9, "empty": b""}[damage])
    if (kind, damage) == ("gz", "empty"):
        assert run(path, tmp_path / "tree") == {"a": content_sha(b"")}  # gzip reads an empty file as empty
        return
    with pytest.raises(DataError, match=r"a\.\w+: damaged archive"):
        run(path, tmp_path / "tree")


def content_sha(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_flipped_bit_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", bytes(1000))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[500] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="damaged archive"):
        run(tmp_path / "a.zip", tmp_path / "tree")


def test_single_files_land_where_the_manifest_says(tmp_path: Path) -> None:
    (tmp_path / "log.json.xz").write_bytes(lzma.compress(b"{}"))
    assert list(run(tmp_path / "log.json.xz", tmp_path / "tree")) == ["log.json"]
    (tmp_path / "w.th").write_bytes(b"weights")
    assert list(run(tmp_path / "w.th", tmp_path / "tree", unpack="none", to="deep/v.th")) == ["deep/v.th"]
    assert (tmp_path / "tree/deep/v.th").read_bytes() == b"weights"
