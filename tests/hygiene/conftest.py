"""What is in the project: the files that git tracks or would track."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Tracked files and new ones that are not ignored, without links."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.fixture(scope="session")
def project_texts(project_files: list[Path]) -> dict[str, str]:
    """Content of every text file by its path from the root; the lock and binary files left out."""
    texts = {}
    for path in project_files:
        try:
            texts[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    texts.pop("requirements.lock", None)
    return texts


@pytest.fixture(scope="session")
def loaded_for_planning() -> dict[str, bool]:
    """Which heavy packages a process has loaded after it imported what plans a workflow."""
    code = (
        "import sys, json, shared.workflow, shared.results.claims\n"
        "heavy = ('torch', 'pandas', 'transformers')\n"
        "print(json.dumps({name: name in sys.modules for name in heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded: dict[str, bool] = json.loads(done.stdout)
    return loaded
