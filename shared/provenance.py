"""What a record must carry so that its number can be made again."""

import functools
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from shared.files import digest
from shared.paths import ROOT

# Versions that can move numbers; only those already installed are listed.
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "accelerate", "transformers", "diffusers", "timm")


def provenance(job: dict[str, Any]) -> dict[str, Any]:
    """Commit, dirty flag, digests of the job and its data, versions; equal for equal jobs, but for the date (UTC)."""
    from shared.data.manifest import load_manifest

    return {
        **_code(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "job_digest": digest(job),
        "data": {name: load_manifest(name).identity() for name in job["manifests"]},
        "versions": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _code() -> dict[str, Any]:
    """Commit of the checkout and whether tracked files differ from it; "unknown" in a copy without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
