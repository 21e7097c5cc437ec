"""Every paper's room: skeleton, valid configurations at every scale, well-formed numbers, claims, one-way imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config import load_config, scales
from shared.paths import ROOT, paper_slugs
from shared.planning.plan import Plan
from shared.results.claims import check_claims
from shared.results.published import read_published

SLUGS = paper_slugs()
SCALES = [(slug, scale) for slug in SLUGS for scale in scales(slug)]
SKELETON = [
    "README.md",
    "Snakefile",
    "__init__.py",
    "claims.yaml",
    "config/full.yaml",
    "config/mini.yaml",
    "method.py",
    "published.csv",
]


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("name", SKELETON)
def test_the_skeleton_is_complete(slug, name):
    assert (ROOT / "papers" / slug / name).is_file()


@pytest.mark.parametrize(("slug", "scale"), SCALES)
def test_every_scale_plans_and_its_claims_name_cells_that_exist(slug, scale):
    plan = Plan(slug, scale)
    claims = check_claims(ROOT / plan.spec["claims_yaml"], plan.spec)
    assert plan.records
    assert claims or slug not in {"salun"}


@pytest.mark.parametrize("slug", SLUGS)
def test_mini_is_a_delta_of_values(slug):
    """The experiments, rows and methods of mini are those of full."""
    full, mini = load_config(slug, "full"), load_config(slug, "mini")
    assert set(mini.experiments) == set(full.experiments)
    for name, experiment in mini.experiments.items():
        assert set(experiment.rows) == set(full.experiments[name].rows)
        for row, values in experiment.rows.items():
            assert values.method == full.experiments[name].rows[row].method


@pytest.mark.parametrize("slug", SLUGS)
def test_pilot_and_test_seeds_are_apart_at_every_scale(slug):
    for scale in scales(slug):
        seeds = load_config(slug, scale).seeds
        assert seeds.pilot not in seeds.test


@pytest.mark.parametrize("slug", SLUGS)
def test_published_numbers_are_well_formed(slug):
    read_published(ROOT / "papers" / slug / "published.csv")


@pytest.mark.parametrize("slug", SLUGS)
def test_the_readme_shows_its_records(slug):
    done = subprocess.run(
        [sys.executable, "-m", "shared.results", "readme", slug, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("slug", SLUGS)
def test_full_is_planned_by_the_engine_without_the_data(slug, tmp_path):
    engine = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "-s", str(ROOT / "Snakefile")]
    command = [*engine, "--directory", str(tmp_path), "--config", "scale=full", "--", slug]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "shared").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_never_imports_a_paper(path):
    assert not {name for name in imported(path) if name.split(".")[0] == "papers"}


@pytest.mark.parametrize("path", sorted((ROOT / "papers").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_paper_imports_no_other_paper(path):
    own = f"papers.{path.relative_to(ROOT / 'papers').parts[0]}"
    foreign = {name for name in imported(path) if name.startswith("papers.") and not name.startswith(own)}
    assert not foreign, (
        f"use another paper's method by its import path in the configuration, not by an import: {foreign}"
    )


def test_packages_have_empty_init_files():
    for folder in ("shared", "papers"):
        assert [str(path) for path in (ROOT / folder).rglob("__init__.py") if path.stat().st_size] == []
