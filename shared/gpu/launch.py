"""Jobs on several GPUs: the command line of `accelerate launch`, and a process's place in it."""

import os
import sys
from collections.abc import Sequence


def launch_command(module: str, arguments: Sequence[str], num_processes: int, cpu: bool = False) -> list[str]:
    """Argument list that runs `python -m module arguments...` in `num_processes` processes, one a
    GPU.

    One process needs no launcher. cpu: processes on the CPU (gloo), for tests. Everything that a
    user's own accelerate configuration could set is stated: a job must not depend on a file in
    somebody's home.
    """
    if num_processes < 1:
        raise ValueError(f"a job needs at least one process, not {num_processes}")
    if num_processes == 1:
        return [sys.executable, "-m", module, *arguments]
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        "--cpu" if cpu else "--multi_gpu",
        *("--num_processes", str(num_processes)),
        *("--num_machines", "1"),
        *("--machine_rank", "0"),
        *("--main_process_port", "0"),  # a free port: two jobs may share the machine
        *("--mixed_precision", "no"),  # precision is the policy of shared.gpu.precision
        *("--dynamo_backend", "no"),
        *("--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS", "1")),
        "--module",
        module,
        *arguments,
    ]


def num_processes() -> int:
    """Number of processes of this job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the job's files; every other one only computes along."""
    return os.environ.get("RANK", "0") == "0"
