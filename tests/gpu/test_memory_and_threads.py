import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.gpu import memory
from shared.gpu.memory import PeakMemory
from shared.gpu.threads import POOLS, set_threads

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_peak_sees_an_allocation_that_is_gone_at_the_end():
    with PeakMemory(CPU) as small:
        pass
    # fresh pages: what earlier tests have freed may still be resident, and an allocator would hand it out again
    with PeakMemory(CPU) as large, mmap.mmap(-1, 64 * 2**20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    assert large.peak_mb > small.peak_mb + 48
    if large.resets:
        with PeakMemory(CPU) as after:
            pass
        assert after.peak_mb < large.peak_mb - 48


def test_peak_of_the_whole_process_where_it_cannot_be_reset(monkeypatch):
    monkeypatch.setattr(memory, "_reset_resident_peak", lambda: False)
    with PeakMemory(CPU) as peak:
        pass
    assert not peak.resets
    assert peak.peak_mb > 10


def test_peak_without_proc(monkeypatch):
    def unreadable(*_, **__):
        raise OSError("no /proc here")

    monkeypatch.setattr(Path, "read_text", unreadable)
    monkeypatch.setattr(Path, "write_text", unreadable)
    with PeakMemory(CPU) as peak:
        pass
    assert not peak.resets
    assert peak.peak_mb > 10


def test_gpu_peak_is_torchs(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    device = torch.device("cuda", 1)
    with PeakMemory(device) as peak:
        pass
    assert peak.peak_mb == 3
    assert calls == [device]


def test_threads_bound_every_pool(monkeypatch):
    for name in (*POOLS, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "7")
    before = torch.get_num_threads()
    try:
        set_threads(2)
        assert torch.get_num_threads() == 2
        assert {os.environ[name] for name in POOLS} == {"2"}
        assert os.environ["OMP_WAIT_POLICY"] == "7"  # a choice of the user's stays
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="at least one thread"):
        set_threads(0)


def test_threads_and_lease_import_no_torch():
    code = (
        "import sys; import shared.gpu.lease, shared.gpu.launch\n"
        "from shared.gpu.threads import set_threads\n"
        "set_threads(1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
