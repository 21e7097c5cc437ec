"""One GPU, one job: concurrent jobs of a user on one machine take different GPUs.

A lease is a file lock named after the physical GPU. The kernel drops it when its process dies,
however that happens. Torch-free: it must come before CUDA starts, because it narrows
CUDA_VISIBLE_DEVICES.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import UserError

# Set for a leasing job's children (`accelerate launch`): they compute on what their parent holds.
_HELD = "REPLICATE_LEASED_GPUS"
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 60.0


@contextmanager
def lease(num_gpus: int = 1, devices: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[list[str]]:
    """Hold `num_gpus` GPUs: yields their names, and meanwhile CUDA_VISIBLE_DEVICES lists only them.

    Waits, with a line of progress, while other jobs hold them. Without a GPU (or with
    REPLICATE_DEVICE=cpu) there is nothing to lease: yields []. Inside a SLURM allocation the
    scheduler has assigned the GPUs, and a child of a leasing job has its parent's: both are taken
    as they are, without a lock.

    devices: the GPUs to choose from, by default those that CUDA would see. folder: where the locks
    lie, by default a folder of the user on this machine. Raises UserError when there are fewer.
    """
    if devices is None:
        on_cpu = os.environ.get("REPLICATE_DEVICE", "").strip().lower() == "cpu"
        devices = [] if on_cpu else visible_gpus()
    if not devices or num_gpus == 0:
        yield []
        return
    if len(devices) < num_gpus:
        raise UserError(
            f"the job wants {num_gpus} GPUs, {len(devices)} can be seen here "
            f"({', '.join(devices)}); ask for fewer, or check CUDA_VISIBLE_DEVICES"
        )
    if os.environ.get("SLURM_JOB_ID") or os.environ.get(_HELD):
        yield list(devices[:num_gpus])
        return
    with ExitStack() as stack:
        held = _acquire(stack, devices, num_gpus, folder or _user_folder())
        names = ",".join(held)
        stack.enter_context(_environment({"CUDA_VISIBLE_DEVICES": names, _HELD: names}))
        yield held


def visible_gpus() -> list[str]:
    """Names (UUIDs where the driver tells them, else indices) of the GPUs that CUDA would see, in
    its order.

    CUDA_VISIBLE_DEVICES may list indices, GPU or MIG UUIDs or their beginnings; as in CUDA, the
    list ends at the first entry that does not exist. An empty value hides every GPU.
    """
    physical = _physical_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return physical
    names: list[str] = []
    for entry in (part.strip() for part in listed.split(",")):
        name = _resolve(entry, physical)
        if name is None or name in names:
            break
        names.append(name)
    return names


def _resolve(entry: str, physical: Sequence[str]) -> str | None:
    if re.fullmatch(r"\d+", entry):
        return physical[int(entry)] if int(entry) < len(physical) else None
    if entry.startswith("MIG-"):
        return entry  # a slice of a GPU: leased under its own name
    matches = [name for name in physical if entry.startswith("GPU-") and name.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _physical_gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        return _gpus_of_torch()  # containers may hold the driver without this program
    except (subprocess.SubprocessError, OSError):
        return []  # the program is there and finds no working driver: no GPU
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _gpus_of_torch() -> list[str]:
    """Indices of the physical GPUs, from another process: CUDA must not start before the lease."""
    if not Path("/dev/nvidiactl").exists():
        return []
    code = "import torch; print(torch.cuda.device_count())"
    unrestricted = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=unrestricted, check=False
    ).stdout.strip()
    return [str(index) for index in range(int(answer))] if answer.isdigit() else []


def _acquire(stack: ExitStack, devices: Sequence[str], num_gpus: int, folder: Path) -> list[str]:
    """Lock `num_gpus` devices, all or none at a time: two waiting jobs cannot block each other."""
    started = time.monotonic()
    reported: float | None = None
    while True:
        with ExitStack() as attempt:
            held: list[str] = []
            for name in devices:
                if len(held) < num_gpus and _try_lock(attempt, folder / f"{_file_name(name)}.lock"):
                    held.append(name)
            if len(held) == num_gpus:
                stack.enter_context(attempt.pop_all())
                return held
        now = time.monotonic()
        if reported is None or now - reported >= _REPORT_SECONDS:
            waited = f" ({now - started:.0f} s so far)" if reported is not None else ""
            wanted = f"{num_gpus} of {len(devices)} GPU(s)"
            print(f"waiting for {wanted}: other jobs hold them{waited}", file=sys.stderr)
            reported = now
        time.sleep(_POLL_SECONDS)


def _try_lock(stack: ExitStack, path: Path) -> bool:
    # is_singleton=False: two leases in one process must exclude each other like those of two
    # processes
    try:
        stack.enter_context(FileLock(path, timeout=0, is_singleton=False))
    except Timeout:
        return False
    return True


def _file_name(device: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", device)


def _user_folder() -> Path:
    """A folder for the user's locks, the same for all of the user's jobs on this machine."""
    folder = Path(tempfile.gettempdir()) / f"replicate-gpu-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} belongs to somebody else; remove it or set TMPDIR to a folder of your own")
    return folder


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
