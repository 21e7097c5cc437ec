"""Snakemake as a user runs it, and a SLURM cluster of one that all tests share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "slurm_single_node.sh"

# A workflow whose jobs ask for resources as the rules of a paper do.
SNAKEFILE = """
rule all:
    input:
        expand("out/{n}.txt", n=[0, 1]),

rule row:
    output:
        "out/{n}.txt",
    threads: 1
    resources:
        mem_mb=lambda w: 300,
        runtime=lambda w: 7,
        gpu=lambda w: int(w.n) * GPUS,
    shell:
        "echo ${{SLURM_JOB_ID:-none}} > {output}; pwd >> {output}"
"""


@pytest.fixture(scope="session")
def tiny_workflow() -> Callable[[Path, int], None]:
    """Writes a workflow of two independent jobs; the second asks for the given number of GPUs."""

    def write(folder: Path, gpus: int) -> None:
        (folder / "Snakefile").write_text(f"GPUS = {gpus}\n{SNAKEFILE}")

    return write


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs this Python with arguments in a folder; the `bin` beside it comes first on the path."""

    def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project as git sees it, to run in and to change."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    return tmp_path


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """SLURM on the loopback interface; stopped at the end, whatever happened."""
    reason = why_no_slurm()
    if reason:
        pytest.skip(reason)
    started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        subprocess.run([SCRIPT, "stop"], check=True)


def why_no_slurm() -> str:
    """Why SLURM cannot be started on this machine, or an empty string."""
    if os.geteuid() != 0:
        return "only root can start SLURM's daemons"
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    daemons = ("slurmctld", "slurmd", "munged")
    missing = [name for name in daemons if not shutil.which(name, path=path)]
    if missing:
        return f"not installed: {', '.join(missing)} (packages slurm-wlm and munge)"
    configuration = Path("/etc/slurm/slurm.conf")
    if configuration.exists() and "slurm_single_node" not in configuration.read_text():
        return f"{configuration} belongs to a cluster"
    return ""
