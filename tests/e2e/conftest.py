"""A copy of the project with one small paper, and a way to run the engine in it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml

from shared.paths import ROOT


def copy_project(target: Path) -> Path:
    """Copy what belongs to the project (tracked or not yet, but not ignored), without any paper's results."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        for name in ("REPLICATE_DATA", "REPLICATE_MANIFESTS", "REPLICATE_WARM"):
            self.environment.pop(name, None)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python <arguments>` in the folder."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the engine on two cores."""
        return self.python("-m", "snakemake", "--cores", "2", *arguments, check=check)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the engine in the background, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def planned(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry run would start."""
        done = self.snakemake(*arguments, "-n", "--quiet", "rules")
        text = done.stdout + done.stderr
        return {
            rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE) if rule != "total"
        }

    def reasons(self, *arguments: str) -> str:
        """The full text of a dry run."""
        done = self.snakemake(*arguments, "-n")
        return done.stdout + done.stderr

    def logs(self) -> str:
        """The end of every log, for a failed assertion."""
        return "\n".join(
            f"--- {log.relative_to(self.folder)}\n{log.read_text()[-800:]}"
            for log in self.folder.glob("results/**/*.log")
        )

    def config(self, slug: str, change: Callable[[dict], None], scale: str = "mini") -> None:
        """Edit a configuration."""
        path = self.folder / "papers" / slug / "config" / f"{scale}.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values))

    def offer(self, mirror: Path, name: str, contents: Iterable[bytes]) -> None:
        """Put the files of a manifest into a mirror, and their digests into the manifest, in its order."""
        path = self.folder / "data_manifests" / f"{name}.yaml"
        values = yaml.safe_load(path.read_text())
        (mirror / name).mkdir(parents=True)
        for file, content in zip(values["files"], contents, strict=True):
            (mirror / name / file["name"]).write_bytes(content)
            file.pop("md5", None)
            file |= {"sha256": [hashlib.sha256(content).hexdigest()], "size": len(content)}
        path.write_text(yaml.safe_dump(values))


def shorten(values: dict) -> None:
    """Two epochs instead of forty: what is tested is the workflow, not the paper."""
    values["tasks"]["main"]["train"]["epochs"] = 2
    for row in values["experiments"]["E1"]["rows"].values():
        row["options"]["epochs"] = 2


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the room that `shared.scaffold` makes, as CONTRIBUTING says, run once."""
    project = Project(copy_project(tmp_path_factory.mktemp("template")))
    for room in (project.folder / "papers").glob("*/"):
        # method functions of other rooms stay; their workflows are not part of these tests
        (room / "Snakefile").unlink(missing_ok=True)
    project.python("-m", "shared.scaffold", "demo", "--title", "A demonstration")
    project.config("demo", shorten)
    project.snakemake("demo")
    return project.folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    """A fresh copy of the finished template."""
    shutil.copytree(
        template, tmp_path / "project", symlinks=True, ignore=shutil.ignore_patterns("warm-*", "alive.lock")
    )
    return Project(tmp_path / "project")
