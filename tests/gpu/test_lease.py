import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.gpu import lease as lease_module
from shared.gpu.lease import lease, visible_gpus

ROOT = Path(__file__).resolve().parents[2]
GPUS = ["GPU-aaaa", "GPU-bbbb", "GPU-cccc"]
HOLDER = """
import sys, time
from pathlib import Path
from shared.gpu.lease import lease
with lease(int(sys.argv[2]), devices=sys.argv[3:], folder=Path(sys.argv[1])) as held:
    print(",".join(held), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (
        "CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_ID",
        "REPLICATE_LEASED_GPUS",
        "REPLICATE_DEVICE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(lease_module, "_POLL_SECONDS", 0.02)


@pytest.fixture
def start_holder(tmp_path):
    """Start another process that holds GPUs; returns (process, names held)."""
    processes = []

    def start(count: int, devices: list[str]) -> tuple[subprocess.Popen, list[str]]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(count), *devices]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        processes.append(process)
        return process, process.stdout.readline().strip().split(",")

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_without_gpu_it_does_nothing(monkeypatch):
    monkeypatch.setattr(lease_module, "_physical_gpus", list)
    with lease() as held:
        assert held == []
    monkeypatch.setattr(lease_module, "_physical_gpus", lambda: GPUS)
    monkeypatch.setenv("REPLICATE_DEVICE", "cpu")
    with lease() as held:
        assert held == []


def test_two_processes_get_different_gpus(start_holder, tmp_path):
    _, theirs = start_holder(1, GPUS)
    with lease(2, devices=GPUS, folder=tmp_path) as mine:
        assert sorted([*theirs, *mine]) == GPUS
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(mine)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_death_of_the_holder_releases(start_holder, tmp_path, capsys, monkeypatch):
    process, theirs = start_holder(1, GPUS[:1])
    assert theirs == GPUS[:1]
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    monkeypatch.setattr(time, "sleep", sleep)
    with lease(1, devices=GPUS[:1], folder=tmp_path) as mine:
        assert mine == GPUS[:1]
    assert len(waits) == 3
    assert capsys.readouterr().err == "waiting for 1 of 1 GPU(s): other jobs hold them\n"


def test_a_lease_that_waits_holds_nothing_meanwhile(start_holder, tmp_path, monkeypatch):
    start_holder(1, GPUS[:1])

    class StopTestError(Exception):
        pass

    def sleep(_: float) -> None:
        with lease(1, devices=GPUS[1:2], folder=tmp_path) as other:
            assert other == GPUS[1:2]
        raise StopTestError

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(StopTestError), lease(2, devices=GPUS[:2], folder=tmp_path):
        pass


def test_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), lease(1, devices=GPUS[:1], folder=tmp_path):
        raise KeyError
    with lease(1, devices=GPUS[:1], folder=tmp_path) as held:
        assert held == GPUS[:1]


def test_more_than_there_are(tmp_path):
    with (
        pytest.raises(UserError, match="the job wants 4 GPUs, 3 can be seen here"),
        lease(4, GPUS, tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "REPLICATE_LEASED_GPUS"])
def test_an_assignment_by_others_is_trusted(name, monkeypatch, tmp_path):
    monkeypatch.setenv(name, "1")
    with lease(1, GPUS, tmp_path) as first, lease(1, GPUS, tmp_path) as second:
        assert first == second == GPUS[:1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, GPUS),
        ("", []),
        ("-1", []),
        ("2,0", ["GPU-cccc", "GPU-aaaa"]),
        ("GPU-bbbb,GPU-aaaa", ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-b", ["GPU-bbbb"]),
        ("GPU-", []),
        ("0,7,1", ["GPU-aaaa"]),
        ("0,0", ["GPU-aaaa"]),
        ("MIG-1234,MIG-5678", ["MIG-1234", "MIG-5678"]),
    ],
)
def test_visible_gpus_follow_cudas_rules(value, expected, monkeypatch):
    monkeypatch.setattr(lease_module, "_physical_gpus", lambda: GPUS)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected


def test_driver_program_is_read(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus() == ["GPU-1", "GPU-2"]
    program.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert visible_gpus() == []


def test_lock_folder_of_somebody_else_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(lease_module.tempfile, "gettempdir", lambda: str(tmp_path))
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / f"replicate-gpu-locks-{os.getuid()}").symlink_to(target)
    with pytest.raises(UserError, match="belongs to somebody else"), lease(1, GPUS):
        pass


def test_default_folder_is_private(monkeypatch, tmp_path):
    monkeypatch.setattr(lease_module.tempfile, "gettempdir", lambda: str(tmp_path))
    with lease(1, GPUS) as held:
        assert held == GPUS[:1]
    folder = tmp_path / f"replicate-gpu-locks-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
