"""The Makefile and the set-up script, with stand-ins for what they call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# `make test` runs this too: what it hands on to a make of its own must not reach ours.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def script(path: Path, line: str) -> None:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("workflow", "summary"), [(0, 0), (1, 0), (0, 1), (3, 1)])
def test_make_run_always_ends_with_the_summary_and_red_stays_red(tmp_path: Path, workflow: int, summary: int) -> None:
    script(tmp_path / "snakemake", f'echo "snakemake $@"; exit {workflow}')
    script(tmp_path / "python", f'echo "python $@"; exit {summary}')
    variables = [f"PATH={tmp_path}:{os.environ['PATH']}", f"PYTHON={tmp_path}/python"]
    done = subprocess.run(
        ["make", "run", "PAPER=x", "SCALE=full", "CORES=8", "READY=LICENSE", *variables],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[:2] == [
        "snakemake x --cores 8 --config scale=full",
        "python -m shared.results summary x full",
    ]
    assert (done.returncode == 0) == (workflow == summary == 0)
    assert f"Error {workflow or summary}" in done.stderr or done.returncode == 0


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    for target in ("setup", "run", "test", "mini", "bench", "report", "lint", "clean", "help"):
        assert f"make {target} " in done.stdout


def test_setup_without_a_suitable_python_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    script(tmp_path / "old-python", "exit 1")
    done = subprocess.run(
        ["bash", tmp_path / "scripts" / "setup.sh"],
        env={**os.environ, "PYTHON": str(tmp_path / "old-python")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no Python >= 3.11 with venv and ensurepip" in done.stderr
    assert "python3.11-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()
