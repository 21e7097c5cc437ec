"""A job file with what it hangs on, and the data sets that jobs wait for."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.config import Resources
from shared.data.manifest import load_manifest
from shared.data.pull import data_root


@dataclass(frozen=True)
class Job:
    """A job file with what it hangs on. `path` holds `content`; the job is done when `output` exists.

    Resources are not part of the content: asking for more memory must not re-run a finished job.
    """

    path: Path
    output: Path
    content: dict[str, Any]
    inputs: list[str] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)


def pulled_marker(manifest: str) -> Path:
    """File that says that a data set is pulled and verified."""
    return data_root() / manifest / "pulled.json"


@functools.cache
def load_identity(manifest: str) -> str:
    """Digest of what a data set *is*, whatever address it came from."""
    return load_manifest(manifest).identity()
