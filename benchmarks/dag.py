"""Time to plan 56 papers with 30 row jobs each: the whole dry run, less that of an empty workflow.

    python -m benchmarks.dag

Generates 56 rooms in a copy of the project. Both figures come from one run on one machine; their ratio is what counts.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from shared.files import write_json
from shared.paths import ROOT

NUM_PAPERS, NUM_ROWS, REPEATS = 56, 30, 3
OUTPUT = ROOT / "benchmarks" / "results" / "dag.json"


def generate(target: Path) -> None:
    """56 rooms of one experiment with 30 rows, one seed group each."""
    for name in ("shared", "workflows", "data_manifests"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", target / "Snakefile")
    environment = {**os.environ, "PYTHONPATH": str(target)}
    (target / "papers").mkdir()
    (target / "papers" / "__init__.py").touch()
    scaffold = [sys.executable, "-m", "shared.scaffold"]
    subprocess.run([*scaffold, "paper_00"], cwd=target, env=environment, check=True, capture_output=True)
    room = target / "papers" / "paper_00"
    config = room / "config" / "mini.yaml"
    values = yaml.safe_load(config.read_text())
    rows = values["experiments"]["E1"]["rows"]
    for index in range(NUM_ROWS - 3):
        rows[f"FT-{index}"] = {"method": "finetune", "options": {"lr": 0.001 * (index + 1)}}
    config.write_text(yaml.safe_dump(values))
    for number in range(1, NUM_PAPERS):
        copy = target / "papers" / f"paper_{number:02d}"
        shutil.copytree(room, copy)
        for path in copy.rglob("*"):
            if path.is_file():
                path.write_text(path.read_text().replace("paper_00", copy.name))


def seconds(arguments: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds and output of one engine call."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout + done.stderr


def main() -> None:
    """Measure, print, and keep the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder)
        (folder / "Empty.smk").write_text('rule all:\n    shell:\n        "true"\n')
        first, text = seconds(["all", "-n", "--quiet", "rules"], folder)  # writes the job files
        starts, plans = [], []
        for _ in range(REPEATS):
            starts.append(seconds(["-n", "--quiet", "all", "-s", "Empty.smk"], folder)[0])
            plans.append(seconds(["all", "-n", "--quiet", "rules"], folder)[0])
    start, plan = sorted(starts)[REPEATS // 2], sorted(plans)[REPEATS // 2]
    total = next(line.split()[-1] for line in text.splitlines() if line.startswith("total"))
    figures = {
        "papers": NUM_PAPERS, "jobs": int(total), "engine_start_seconds": round(start, 2),
        "dry_run_seconds": round(plan, 2), "first_dry_run_seconds": round(first, 2),
        "dag_seconds": round(plan - start, 2), "dag_over_start": round((plan - start) / start, 2),
    }  # fmt: skip
    write_json(OUTPUT, figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
