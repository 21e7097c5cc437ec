"""Whole pulls: mirror, network, kill -9, full disk, two at once, damaged and foreign data."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shared.data import disk, unpack
from shared.data import pull as pull_module
from shared.data.__main__ import main
from shared.data.pull import data_root, pull, pulled_content, verify
from shared.data.verify import content_digest
from shared.errors import ConfigError, DataError
from shared.paths import ROOT

FILES = {"train/a.txt": b"alpha", "train/b.txt": b"beta", "test/c.txt": b"gamma"}


@pytest.fixture
def content(sha256: Any) -> dict[str, Any]:
    digest = content_digest({path: sha256(data) for path, data in FILES.items()})
    return {"sha256": digest, "num_files": 3, "max_bytes": 14}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "pulled.json"
    }


@pytest.fixture
def toy(world: Any, server: Any, tar: Any, sha256: Any, content: dict[str, Any]) -> Any:
    """A data set served at /toy.tar.gz, described in full."""
    archive = tar(FILES)
    world.archive = archive
    world.file = {
        "name": "toy.tar.gz",
        "addresses": [server.serve("/toy.tar.gz", archive)],
        "size": len(archive),
        "sha256": [sha256(archive)],
        "unpack": "tar",
    }
    world.manifest(files=[world.file], content=content)
    return world


def test_pull_from_the_network(toy: Any, server: Any) -> None:
    folder = pull("toy")
    assert folder == toy.root / "toy"
    assert tree(folder) == FILES
    record = json.loads((folder / "pulled.json").read_text())
    assert record["num_files"] == 3
    assert record["num_bytes"] == 14
    assert record["sources"] == [{"file": "toy.tar.gz", "from": server.address("/toy.tar.gz")}]
    assert pulled_content("toy") == verify("toy") == record["content"]
    assert toy.leftovers() == []


def test_second_pull_touches_nothing(toy: Any, server: Any) -> None:
    pull("toy")
    before = (toy.root / "toy/pulled.json").stat().st_mtime_ns
    pull("toy")
    assert (toy.root / "toy/pulled.json").stat().st_mtime_ns == before
    assert len(server.requests) == 1


def test_root_defaults_to_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLICATE_DATA", raising=False)
    assert data_root() == Path("resources")


def test_missing_address_then_the_next(toy: Any, server: Any, content: dict[str, Any]) -> None:
    toy.file["addresses"].insert(0, server.address("/gone.tar.gz"))
    toy.manifest(files=[toy.file], content=content)
    assert tree(pull("toy")) == FILES


def test_wrong_bytes_at_one_address_then_the_next(toy: Any, server: Any, content: dict[str, Any]) -> None:
    wrong = bytearray(toy.archive)
    wrong[-1] ^= 1
    toy.file["addresses"].insert(0, server.serve("/wrong.tar.gz", bytes(wrong)))
    toy.manifest(files=[toy.file], content=content)
    assert tree(pull("toy")) == FILES


# --- mirror ---


@pytest.mark.parametrize("place", ["toy/toy.tar.gz", "toy.tar.gz", "elsewhere/named.tar.gz"])
def test_mirror_comes_first(
    toy: Any, server: Any, monkeypatch: pytest.MonkeyPatch, place: str, content: dict[str, Any]
) -> None:
    toy.manifest(files=[{**toy.file, "mirror": "elsewhere/named.tar.gz"}], content=content)
    toy.put_in_mirror(place, toy.archive)
    monkeypatch.setenv("DATA_MIRROR", str(toy.mirror))
    assert tree(pull("toy")) == FILES
    assert server.requests == []


def test_mirror_without_the_file_falls_back(toy: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.put_in_mirror("other/x", b"")
    monkeypatch.setenv("DATA_MIRROR", str(toy.mirror))
    assert tree(pull("toy")) == FILES
    assert len(server.requests) == 1


def test_corrupt_mirror_file(toy: Any, server: Any, monkeypatch: pytest.MonkeyPatch, sha256: Any) -> None:
    path = toy.put_in_mirror("toy/toy.tar.gz", toy.archive[:-3])
    monkeypatch.setenv("DATA_MIRROR", str(toy.mirror))
    with pytest.raises(DataError) as caught:
        pull("toy")
    message = str(caught.value)
    for part in (
        str(path),
        sha256(toy.archive),
        sha256(toy.archive[:-3]),
        "replace this file",
        "unset DATA_MIRROR",
    ):
        assert part in message
    assert server.requests == []  # a damaged mirror is not hidden by a download
    assert not (toy.root / "toy").exists()


def test_mirror_that_is_no_folder(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", "/nowhere")
    with pytest.raises(DataError, match="DATA_MIRROR=/nowhere is no folder"):
        pull("toy")


def test_unpacked_folder_in_the_mirror(toy: Any, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> None:
    hub = {"repo": "a/b", "revision": "0" * 40, "repo_type": "dataset", "allow": ["*"]}
    toy.manifest(hub=hub, content=content)
    for path, data in FILES.items():
        toy.put_in_mirror(f"toy/{path}", data)
    monkeypatch.setenv("DATA_MIRROR", str(toy.mirror))
    assert tree(pull("toy")) == FILES
    (toy.mirror / "toy/train/a.txt").write_text("changed")
    with pytest.raises(DataError, match="content of the mirror's folder"):
        pull("toy", toy.root / "again")


# --- another archive of the same content ---


def test_repository_archive_with_top_folder(toy: Any, server: Any, tar: Any, content: dict[str, Any]) -> None:
    repository = tar(
        {"repo-abc/README": b"hello", **{f"repo-abc/{path}": data for path, data in FILES.items()}},
        "xz",
    )
    other = {
        "name": "repo-abc.tar.gz",
        "addresses": [server.serve("/archive", repository)],
        "unpack": "tar",
        "strip": 1,
        "keep": ["train/*", "test/*"],
    }
    toy.manifest(files=[{**toy.file, "addresses": [], "alternatives": [other]}], content=content)
    assert tree(pull("toy")) == FILES


def test_repository_archive_of_other_content(toy: Any, server: Any, tar: Any, content: dict[str, Any]) -> None:
    other = {
        "name": "r.tar",
        "addresses": [server.serve("/r", tar({**FILES, "test/c.txt": b"GAMMA"}))],
        "unpack": "tar",
    }
    toy.manifest(files=[{**toy.file, "addresses": [], "alternatives": [other]}], content=content)
    with pytest.raises(DataError, match=rf"content of http.*/r differs: expected {content['sha256']}, found"):
        pull("toy")
    assert toy.leftovers() == []
    assert not (toy.root / "toy").exists()


def test_number_of_files_is_checked(toy: Any, content: dict[str, Any]) -> None:
    toy.manifest(files=[toy.file], content={**content, "num_files": 4})
    with pytest.raises(DataError, match="holds 3 files, expected 4"):
        pull("toy")


# --- not available ---


def test_no_network_is_one_line(toy: Any, content: dict[str, Any]) -> None:
    addresses = ["http://127.0.0.1:9/toy.tar.gz", "http://no-such-host.invalid/toy.tar.gz"]
    toy.manifest(files=[{**toy.file, "addresses": addresses}], content=content)
    with pytest.raises(DataError) as caught:
        pull("toy")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "'toy' is not available",
        f"{addresses[0]}: Connection refused",
        f"{addresses[1]}: Failed to resolve 'no-such-host.invalid' (2 requests)",
        "put toy.tar.gz into <folder>/toy/ and set DATA_MIRROR=<folder>",
    ):
        assert part in message


def test_gated_data_says_what_to_do(toy: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = {
        "accept": "accept the licence",
        "url": "https://example.org/terms",
        "token": "TOY_TOKEN",
    }
    toy.manifest(files=[toy.file], gate=gate)
    monkeypatch.delenv("TOY_TOKEN", raising=False)
    with pytest.raises(
        DataError,
        match=r"TOY_TOKEN holds no token.*accept the licence at https://example.org/terms",
    ):
        pull("toy")
    assert server.requests == []
    monkeypatch.setenv("TOY_TOKEN", "s3cret")
    assert tree(pull("toy")) == FILES
    assert server.authorizations == ["Bearer s3cret"]
    assert "s3cret" not in (toy.root / "toy/pulled.json").read_text()


def test_refused_token(toy: Any, server: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = {
        "accept": "accept the licence",
        "url": "https://example.org/terms",
        "token": "TOY_TOKEN",
    }
    toy.manifest(files=[toy.file], gate=gate)
    server.serve("/toy.tar.gz", answer(status=403))
    monkeypatch.setenv("TOY_TOKEN", "s3cret")
    with pytest.raises(DataError, match=r"403 .*accept the licence") as caught:
        pull("toy")
    assert "s3cret" not in str(caught.value)


# --- kill -9 and concurrency ---


def start_pull(world: Any, code: str = "from shared.data.pull import pull; pull('toy')") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=world.environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Any, seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "condition not met in time"
        time.sleep(0.01)


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_download_is_continued(toy: Any, server: Any, answer: Any, tar: Any, sha256: Any) -> None:
    big = tar({"noise": os.urandom(3_000_000)})
    file = {
        **toy.file,
        "size": len(big),
        "sha256": [sha256(big)],
        "addresses": [server.address("/big")],
    }
    toy.manifest(files=[file])
    server.serve("/big", answer(big, pause=0.05), answer(big))
    process = start_pull(toy)
    part = toy.root / ".pull/toy/downloads/0/0/toy.tar.gz.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 300_000)
    kill(process)
    assert not (toy.root / "toy").exists()
    have = part.stat().st_size
    assert 300_000 < have < len(big)
    assert len((pull("toy") / "noise").read_bytes()) == 3_000_000
    assert server.requests[-1] == ("/big", f"bytes={have}-")
    assert toy.leftovers() == []


# Where a kill can strike after the download: each entry replaces one function by kill -9 on its
# n-th call.
STRIKES = {
    "in the middle of unpacking": "import shared.data.unpack as m; name='_write'; nth=2",
    "before the record": "import shared.data.pull as m; name='write_json'; nth=1",
    "before the rename": "import shared.data.pull as m; name='_install'; nth=1",
    "before the marker": "import shared.data.pull as m; name='write_json'; nth=2",
}


@pytest.mark.parametrize("strike", STRIKES.values(), ids=STRIKES)
@pytest.mark.parametrize("has_digest", [True, False], ids=["content digest", "archive digest only"])
def test_kill_at_any_moment(toy: Any, strike: str, has_digest: bool, content: dict[str, Any]) -> None:
    if not has_digest:
        toy.manifest(files=[toy.file], content={"max_bytes": 1000})
    code = f"""
import os, signal
{strike}
real, calls = getattr(m, name), []
def lethal(*args, **kwargs):
    calls.append(1)
    if len(calls) == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(m, name, lethal)
from shared.data.pull import pull
pull('toy')
"""
    process = start_pull(toy, code)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not (toy.root / "toy/pulled.json").exists()
    assert tree(pull("toy")) == FILES
    assert verify("toy")
    assert toy.leftovers() == []


def test_two_pulls_at_once_download_once(toy: Any, server: Any, answer: Any) -> None:
    server.serve("/toy.tar.gz", answer(toy.archive, stall=0.3))
    processes = [start_pull(toy) for _ in range(2)]
    assert [(p.communicate(timeout=60), p.returncode)[1] for p in processes] == [0, 0]
    assert len(server.requests) == 1
    assert tree(toy.root / "toy") == FILES


# --- disk ---


def test_too_little_space_is_known_before_the_download(toy: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(DataError, match=r"needs .* MB in .*only .* MB are free.*REPLICATE_DATA"):
        pull("toy")
    assert server.requests == []
    assert toy.leftovers() == []


@pytest.mark.parametrize("where", ["download", "unpacking", "record"])
def test_disk_full_leaves_nothing_half_written(
    toy: Any, server: Any, answer: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "unpacking":
        monkeypatch.setattr(unpack, "_write", full)
    elif where == "record":
        monkeypatch.setattr(pull_module, "write_json", full)
    else:
        from shared.data import fetch

        monkeypatch.setattr(fetch.ResumingDownloader, "_store", full)
    with pytest.raises(DataError, match=r"pull toy: the disk of .* is full"):
        pull("toy")
    assert not (toy.root / "toy/pulled.json").exists()
    if where != "record":
        assert toy.leftovers() == []
    monkeypatch.undo()
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(toy.manifests))
    monkeypatch.setenv("REPLICATE_DATA", str(toy.root))
    assert tree(pull("toy")) == FILES


def test_really_full_disk(toy: Any, tar: Any, sha256: Any, tmp_path: Path) -> None:
    """A 1 MiB file system of its own, in a private mount namespace; the manifest hides how large
    the content is.
    """
    archive = tar({"noise": os.urandom(3 << 20)})
    toy.manifest(
        files=[{"name": "n.tar.gz", "sha256": [sha256(archive)], "unpack": "tar"}],
        content={"max_bytes": 1 << 23},
    )
    toy.put_in_mirror("toy/n.tar.gz", archive)
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "from shared.data import collect, pull as p; collect.require_space = lambda *_: None\n"
        "from shared.errors import DataError\n"
        "try: p.pull('toy')\n"
        "except DataError as e: print(e)\n"
        "import pathlib; print([str(f) for f in p.data_root().rglob('*') if f.is_file() and"
        " f.name != 'lock'])"
    )
    script = f'mount -t tmpfs -o size=1m tmpfs "{small}" || exit 77; exec "{sys.executable}" -c "$CODE"'
    environment = {
        **toy.environment,
        "REPLICATE_DATA": str(small),
        "DATA_MIRROR": str(toy.mirror),
        "CODE": code,
    }
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    try:
        result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no `unshare` on this system")
    if result.returncode in {1, 77} and "unshare" in result.stderr + "unshare" * (result.returncode == 77):
        pytest.skip("mounting a small file system is not permitted here")
    assert "the disk of" in result.stdout, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


# --- folders that are not as they should be ---


def test_folder_made_by_the_workflow_is_used(toy: Any) -> None:
    (toy.root / "toy").mkdir(parents=True)  # Snakemake creates the folder of its outputs
    assert tree(pull("toy")) == FILES


@pytest.mark.parametrize("has_digest", [True, False])
def test_removed_marker_is_restored_without_a_download(
    toy: Any, server: Any, has_digest: bool, content: dict[str, Any]
) -> None:
    if not has_digest:
        toy.manifest(files=[toy.file], content={"max_bytes": 1000})
    pull("toy")
    (toy.root / "toy/pulled.json").unlink()
    assert tree(pull("toy")) == FILES
    assert len(server.requests) == 1


def test_foreign_folder_is_never_replaced(toy: Any) -> None:
    (toy.root / "toy").mkdir(parents=True)
    (toy.root / "toy/thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds files that are not the data set toy"):
        pull("toy")
    assert (toy.root / "toy/thesis.txt").read_text() == "mine"


def test_new_version_replaces_the_old(toy: Any, server: Any, tar: Any, sha256: Any) -> None:
    pull("toy")
    new = tar({"train/a.txt": b"ALPHA"})
    toy.manifest(files=[{**toy.file, "size": len(new), "sha256": [sha256(new)]}])
    server.serve("/toy.tar.gz", new)
    assert tree(pull("toy")) == {"train/a.txt": b"ALPHA"}
    assert toy.leftovers() == []


def test_verify_notices_a_changed_byte(toy: Any) -> None:
    (pull("toy") / "train/a.txt").write_bytes(b"alphA")
    with pytest.raises(DataError, match=r"content of .* differs"):
        verify("toy")


def test_verify_of_what_is_not_pulled(toy: Any) -> None:
    with pytest.raises(DataError, match=r"is not pulled; run: python -m shared\.data pull toy"):
        verify("toy")


def test_damaged_marker_means_not_pulled(toy: Any) -> None:
    (pull("toy") / "pulled.json").write_text("{")
    assert tree(pull("toy")) == FILES
    assert verify("toy")


def test_members_file(toy: Any, server: Any, sha256: Any, content: dict[str, Any]) -> None:
    expected = {"sha256": content_digest({"test/c.txt": sha256(b"gamma")}), "max_bytes": 5}
    toy.manifest(files=[{**toy.file, "members": "toy.txt"}], content=expected)
    with pytest.raises(DataError, match=r"toy\.txt: no such file"):
        pull("toy")
    (toy.manifests / "toy.txt").write_text("test\n")
    assert tree(pull("toy")) == {"test/c.txt": b"gamma"}


# --- command line ---


def test_command_line(toy: Any, capsys: pytest.CaptureFixture[str], content: dict[str, Any]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["toy", "-"]
    assert main(["pull", "toy"]) == 0
    assert capsys.readouterr().out.strip() == str(toy.root / "toy")
    assert main(["verify", "toy"]) == 0
    assert capsys.readouterr().out.strip() == f"toy: {content['sha256']}"
    assert main(["digest", str(toy.root / "toy")]) == 0
    assert capsys.readouterr().out.strip() == f"{content['sha256']}  3 files, 14 bytes"
    assert main(["pull", "toyy"]) == 1
    assert "did you mean 'toy'" in capsys.readouterr().err


def test_unknown_name(toy: Any) -> None:
    with pytest.raises(ConfigError, match="no data set"):
        pull("nothing")


def test_builtin_digits_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path))
    assert {p.name for p in pull("digits", tmp_path / "r").iterdir()} == {
        "images.npy",
        "labels.npy",
        "pulled.json",
    }
