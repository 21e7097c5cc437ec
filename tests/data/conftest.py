"""A small HTTP server on loopback that misbehaves on request, and a scratch world of manifests and
data folders.
"""

import hashlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.data import collect
from shared.data.fetch import Patience
from shared.paths import ROOT


@dataclass
class Answer:
    """What the server does with one request. send: bytes of the body really sent before the
    connection is closed; stall: seconds of silence after those bytes; pause: seconds before every
    64 KiB (a slow but living server).
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send: int | None = None
    stall: float = 0.0
    pause: float = 0.0
    ranges: bool = True
    announce: bool = True


class Server:
    """path -> answers, used one after the other; the last one stays. `requests` holds (path, Range
    header).
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.authorizations: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range")))
                server.authorizations.append(self.headers.get("Authorization"))
                queue = server.answers.get(self.path, [Answer(status=404)])
                answer = queue.pop(0) if len(queue) > 1 else queue[0]
                try:
                    self._send(answer)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _send(self, answer: Answer) -> None:
                body, status = answer.body, answer.status
                wanted = self.headers.get("Range")
                headers = dict(answer.headers)
                if wanted and answer.ranges and status == 200:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
                    else:
                        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                        status, body = 206, body[start:]
                self.send_response(status)
                if answer.announce:
                    headers["Content-Length"] = str(len(body))
                headers["Connection"] = "close"
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.close_connection = True
                if self.command == "HEAD":
                    return
                part = body if answer.send is None else body[: answer.send]
                for start in range(0, len(part), 1 << 16):
                    self.wfile.write(part[start : start + (1 << 16)])
                    self.wfile.flush()
                    time.sleep(answer.pause)
                time.sleep(answer.stall)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def serve(self, path: str, *answers: Answer | bytes) -> str:
        self.answers[path] = [a if isinstance(a, Answer) else Answer(a) for a in answers]
        return self.address(path)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    instance = Server()
    yield instance
    instance.close()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


class World:
    """Scratch folders: manifests, data root, and helpers to write a manifest for given archives."""

    def __init__(self, folder: Path) -> None:
        self.manifests, self.root, self.mirror = (
            folder / "manifests",
            folder / "resources",
            folder / "mirror",
        )
        self.manifests.mkdir()
        self.waits: list[float] = []

    def manifest(self, file: str = "toy", **values: Any) -> None:
        base = {
            "name": file,
            "title": "toy",
            "licence": "CC0",
            "homepage": "https://example.org/",
            "layout": "files",
            "loader": "files",
            "content": {"max_bytes": 1 << 24},
        }
        (self.manifests / f"{file}.yaml").write_text(yaml.safe_dump({**base, **values}))

    def put_in_mirror(self, path: str, content: bytes) -> Path:
        target = self.mirror / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "REPLICATE_MANIFESTS": str(self.manifests),
            "REPLICATE_DATA": str(self.root),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }

    def leftovers(self) -> list[str]:
        """Everything below the data root except finished data sets, locks and receipts."""
        kept = {"lock", "record.json"}
        return sorted(
            str(p.relative_to(self.root))
            for p in (self.root / ".pull").rglob("*")
            if p.is_file() and p.name not in kept
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(made.manifests))
    monkeypatch.setenv("REPLICATE_DATA", str(made.root))
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    patience = Patience(connect=2, stall=0.3, backoff=0.01, sleep=made.waits.append)
    monkeypatch.setattr(collect, "PATIENCE", patience)
    return made


def make_tar(files: dict[str, bytes], compression: str = "gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def tar() -> Any:
    return make_tar


@pytest.fixture
def sha256() -> Any:
    return lambda content: hashlib.sha256(content).hexdigest()


@pytest.fixture
def real_mirror(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real data: DATA_MIRROR, or a sibling folder of the checkout; the test is skipped without
    it.
    """
    place = Path(os.environ.get("DATA_MIRROR") or ROOT.parent / "shared" / "data")
    if not place.is_dir():
        pytest.skip("real data not available: set DATA_MIRROR to the mirror folder")
    monkeypatch.setenv("DATA_MIRROR", str(place))
    return place
