"""CPU threads of a job: those that the workflow gave it, in every pool.

Two jobs whose pools each spin on all cores run ten times slower than two jobs that share them.
Torch-free: call it before numpy and torch are imported, their pools then start with the right size.
"""

import os
import sys

POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def set_threads(num_threads: int) -> None:
    """Bound every pool of this process and its children to `num_threads` (at least 1)."""
    if num_threads < 1:
        raise ValueError(f"a job needs at least one thread, not {num_threads}")
    for name in POOLS:
        os.environ[name] = str(num_threads)
    # Threads that wait for work sleep instead of spinning on a core that another job could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)
