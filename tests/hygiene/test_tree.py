"""Rules that hold for every file: what must not be in the project, and which way imports go."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written so that they do not find themselves.
FORBIDDEN = {
    "host of a package registry": r"py[p]i\.org|pythonh[o]sted|registry\.n[p]mjs|deb\.d[e]bian|"
    r"download\.p[y]torch|conda\.a[n]aconda",
    "path of one machine": r"/(work|home|root|Users)/[a-z0-9_]+/",
    "unfinished work": r"\b(TO[D]O|FI[X]ME|X[X]X)\b|raise NotImpl[e]mentedError",
    "asks for its scale": r"(==|\bin)\s*[\[({]?\s*['\"](min[i]|ful[l])['\"]",
}
# A temporary image, or a user's folder in an image, is not a machine of ours.
ALLOWED = {("envs/Dockerfile", "path of one machine")}
CODE = {"unfinished work", "asks for its scale"}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_in_the_tree(what: str, project_texts: dict[str, str]) -> None:
    found = []
    for name, text in project_texts.items():
        code = name.endswith((".py", ".smk", "Snakefile")) and not name.startswith("tests/")
        if (name, what) in ALLOWED or (what in CODE and not code):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(FORBIDDEN[what], line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_packages_have_empty_init_files() -> None:
    # Importing `shared.x` must cost what `x` costs and nothing else.
    files = [*(ROOT / "shared").rglob("__init__.py"), *(ROOT / "papers").rglob("__init__.py")]
    assert len(files) > 5
    assert [path for path in files if path.read_text().strip()] == []


def test_shared_never_imports_from_papers() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "shared").rglob("*.py")
        for module in imports_of(path)
        if module.split(".")[0] in {"papers", "tests", "benchmarks"}
    ]
    assert not found, "\n".join(found)


def test_papers_import_no_other_paper() -> None:
    # A row may name another paper's method in its config; code may not.
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "papers").rglob("*.py")
        for module in imports_of(path)
        if module.startswith("papers.") and module.split(".")[1] != path.relative_to(ROOT).parts[1]
    ]
    assert not found, "\n".join(found)


def test_planning_imports_neither_torch_nor_pandas(loaded_for_planning: dict[str, bool]) -> None:
    assert loaded_for_planning == {"torch": False, "pandas": False, "transformers": False}


def test_notice_names_every_paper_room() -> None:
    notice = (ROOT / "NOTICE").read_text()
    rooms = [path.parent.name for path in (ROOT / "papers").glob("*/Snakefile")]
    entries = re.findall(r"^([a-z0-9_]+): ", notice, re.MULTILINE)
    assert len(entries) == len(set(entries)) == 56
    assert set(rooms) <= set(entries)
    assert notice.count("arXiv:") == notice.count("\n  Code: ") == 56


def test_files_are_small(project_files: list[Path]) -> None:
    # Data belongs in manifests.
    assert [path for path in project_files if path.stat().st_size > 3_000_000] == []


def test_scripts_can_be_run() -> None:
    scripts = [ROOT / ".ci" / "run", *(ROOT / "scripts").glob("*.sh")]
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []


def test_documented_commands_give_targets_before_config(project_texts: dict[str, str]) -> None:
    # `--config a=b salun` reads salun as one more value of the config, and fails.
    wrong = re.compile(r"snakemake .*--config(\s+\w+=[^\s;]+)+\s+[a-z_]+(\s|`|$)")
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in project_texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if wrong.search(line) and not name.startswith("tests/")
    ]
    assert not found, "\n".join(found)


def imports_of(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
