"""Hub snapshots against a loopback server that speaks the part of the hub's protocol that is
needed.
"""

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest

from shared.data.verify import content_digest
from shared.paths import ROOT

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"full.json": b'{"question": "?"}\n', "forget01.json": b"{}\n", "README.md": b"not allowed"}


def run_pull(world: Any, endpoint: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **world.environment,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(world.root / "hf"),
        **extra,
    }
    environment.pop("HF_HUB_OFFLINE", None)
    environment |= extra
    command = [sys.executable, "-m", "shared.data", "pull", "toy"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def hub_manifest(world: Any, sha256: Any) -> Any:
    wanted = {name: sha256(data) for name, data in FILES.items() if name.endswith(".json")}
    world.manifest(
        hub={"repo": "org/toy", "revision": REVISION, "repo_type": "dataset", "allow": ["*.json"]},
        content={"sha256": content_digest(wanted), "num_files": 2, "max_bytes": 1000},
    )
    return world


def serve_repository(server: Any, answer: Any, status: int = 200) -> str:
    siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
    info = {
        "_id": "1",
        "id": "org/toy",
        "sha": REVISION,
        "siblings": siblings,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "gated": False,
        "disabled": False,
    }
    listing = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in FILES.items()]
    json_type = {"Content-Type": "application/json"}
    if status == 404:
        info = listing = {"error": "Revision Not Found"}  # type: ignore[assignment]
        json_type["X-Error-Code"] = "RevisionNotFound"
    for query in ("", "?blobs=True", "?blobs=true"):
        server.serve(
            f"/api/datasets/org/toy/revision/{REVISION}{query}",
            answer(json.dumps(info).encode(), status=status, headers=json_type),
        )
    for query in (
        "?recursive=True&expand=False",
        "?recursive=true&expand=false",
        "?recursive=True",
    ):
        server.serve(
            f"/api/datasets/org/toy/tree/{REVISION}{query}",
            answer(json.dumps(listing).encode(), status=status, headers=json_type),
        )
    for name, data in FILES.items():
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION}
        server.serve(f"/datasets/org/toy/resolve/{REVISION}/{name}", answer(data, headers=headers))
    return server.address("")


def test_pinned_snapshot(hub_manifest: Any, server: Any, answer: Any) -> None:
    result = run_pull(hub_manifest, serve_repository(server, answer))
    assert result.returncode == 0, result.stderr + str(server.requests)
    folder = hub_manifest.root / "toy"
    assert {p.name for p in folder.iterdir()} == {"full.json", "forget01.json", "pulled.json"}
    assert json.loads((folder / "pulled.json").read_text())["sources"][0]["from"] == f"hub org/toy@{REVISION}"
    assert hub_manifest.leftovers() == []


def test_hub_not_reachable_is_one_line(hub_manifest: Any) -> None:
    result = run_pull(hub_manifest, "http://127.0.0.1:9")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: data set 'toy' is not available: hub org/toy@01234567: ")
    assert "Traceback" not in result.stderr
    assert "set DATA_MIRROR=<folder>" in last


def test_hub_offline(hub_manifest: Any) -> None:
    result = run_pull(hub_manifest, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "is not available: hub org/toy@01234567: " in result.stderr


def test_unknown_revision(hub_manifest: Any, server: Any, answer: Any) -> None:
    result = run_pull(hub_manifest, serve_repository(server, answer, status=404))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "404" in result.stderr
