"""Peak memory of a piece of work."""

import resource
import sys
from pathlib import Path

import torch

_MIB = 2**20


class PeakMemory:
    """Context that measures the peak memory between its start and end, in MiB, as `peak_mb`.

    GPU: memory that torch had allocated on the device. CPU: resident memory of this process,
    everything loaded before included. Where the kernel does not let a process reset its peak
    (`resets` is False), the CPU figure is the peak since the process began: an upper bound.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak_mb = 0.0
        self.resets = True

    def __enter__(self) -> "PeakMemory":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self.resets = _reset_resident_peak()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.peak_mb = torch.cuda.max_memory_allocated(self._device) / _MIB
        else:
            self.peak_mb = _resident_peak_mb()


def _reset_resident_peak() -> bool:
    try:
        # Linux: 5 resets the peak of resident memory (proc(5), clear_refs)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident_peak_mb() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024  # macOS counts bytes, Linux KiB
