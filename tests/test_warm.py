"""The process that shares its imports: exit codes, output, and lifetimes that end with their owner."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared import warm
from shared.paths import ROOT

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="pidfd is Linux only; jobs run without the server there"
)

# Jobs of kind `stage` whose runner is this module: they write a file, fail, or wait.
RUNNER = """
import os, sys, time
from pathlib import Path
from shared.results.records import Cost, Record

def run(job, out, work, threads):
    what = job["recipe"]["what"]
    if what == "fail":
        raise RuntimeError("on purpose")
    if what == "exit":
        os._exit(7)
    if what == "wait":
        (out / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    print("threads", threads)
    return Record("shared", "stage", "stage", "", "demo", 0, [], Cost(0.0, 0, 0.0, "cpu"))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runner_for_test.py").write_text(RUNNER)
    for what in ("write", "fail", "exit", "wait"):
        job = {
            "kind": "stage",
            "run": "runner_for_test:run",
            "recipe": {"what": what},
            "manifests": [],
            "output": f"{what}/record.json",
        }
        (tmp_path / f"{what}.json").write_text(json.dumps(job))
    return tmp_path


@pytest.fixture
def owner():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    yield process
    process.kill()
    process.wait()


def start(folder: Path, owner: subprocess.Popen, what: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "REPLICATE_WARM": str(folder / f"warm-{owner.pid}.sock"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{folder}:{ROOT}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "shared.run", "stage", f"{what}.json", "--threads", "1"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def server_pids(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"shared.warm" in command and any(str(folder).encode() in part for part in command):
                found.append(int(process.name))
    return found


def wait_for(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_runs_in_the_server_with_its_own_output_and_exit_code(folder, owner):
    done = start(folder, owner, "write")
    out, err = done.communicate(timeout=90)
    assert (done.returncode, "threads 1" in out) == (0, True), err
    assert (folder / "write" / "record.json").is_file()
    failed = start(folder, owner, "fail")
    _, err = failed.communicate(timeout=90)
    assert failed.returncode == 1
    assert "RuntimeError: on purpose" in err
    assert json.loads((folder / "fail" / "record.error.json").read_text())["message"] == "RuntimeError: on purpose"
    assert start(folder, owner, "exit").wait(timeout=90) == 7
    assert len(server_pids(folder)) == 1


def test_killing_the_client_kills_its_job_and_killing_the_owner_ends_the_server(folder, owner):
    client = start(folder, owner, "wait")
    assert wait_for((folder / "wait" / "pid").is_file, 60)
    assert wait_for(lambda: (folder / "wait" / "pid").read_text() != "")
    job = int((folder / "wait" / "pid").read_text())
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert wait_for(lambda: not is_alive(job))
    servers = server_pids(folder)
    assert len(servers) == 1
    owner.kill()
    owner.wait()
    assert wait_for(lambda: not any(is_alive(pid) for pid in servers))


def test_without_an_owner_there_is_no_server(folder, owner):
    owner.kill()
    owner.wait()
    assert warm.submit(str(folder / f"warm-{owner.pid}.sock"), ["stage", "write.json"]) is None


def test_modules_are_imported_one_by_one_while_no_job_waits(folder, owner, monkeypatch):
    """The first one writes a mark when it has started, and takes longer than the job that asks meanwhile."""
    slow = "import pathlib, time\npathlib.Path(__file__).with_suffix('.begun').touch()\ntime.sleep(1)\n"
    (folder / "slow_import.py").write_text(slow)
    (folder / "late_import.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.done').touch()\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    address = str(folder / f"warm-{owner.pid}.sock")
    warm.start_early(address, ["slow_import", "late_import"])
    assert wait_for((folder / "slow_import.begun").is_file, 60)
    # asked while the first module is being imported: the job comes before the second one
    job = start(folder, owner, "write")
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 0, errors
    assert wait_for((folder / "late_import.done").is_file, 60)
