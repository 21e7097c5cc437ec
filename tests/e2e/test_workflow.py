"""The workflow as a user meets it: what runs, what runs again, what survives a kill, what a mistake looks like."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def metrics(folder: Path) -> dict[str, list]:
    """Every measured number by record and seed, times left out."""
    found = {}
    for path in sorted(folder.glob("results/demo/mini/records/**/*.json")):
        for record in json.loads(path.read_text())["records"]:
            values = {m["name"]: m["value"] for m in record["metrics"] if m["name"] != "RTE"}
            found[f"{path.relative_to(folder)} {record['seed']}"] = values
    return found


def test_a_scaffolded_paper_runs_as_it_is_and_leaves_a_report(project):
    folder = project.folder / "results" / "demo" / "mini"
    assert (folder / "report.html").stat().st_size > 10_000
    assert "Smoothed" in (folder / "report.md").read_text()
    assert json.loads((folder / "verdict.json").read_text())["verdict"] == "green"
    assert len(metrics(project.folder)) == 3 * 2  # rows x seeds
    assert project.planned("demo") == {}


def test_touching_a_readme_or_the_library_runs_nothing(project):
    for name in ("README.md", "papers/demo/README.md", "shared/classification/run.py", "papers/demo/method.py"):
        (project.folder / name).touch()
    (project.folder / "papers/demo/README.md").write_text("another text\n")
    assert project.planned("demo") == {}


def test_an_edited_hyper_parameter_runs_its_row_the_tables_and_the_report(project):
    before = {path: path.stat().st_mtime_ns for path in project.folder.glob("results/**/records/**/*.json")}
    project.config("demo", lambda v: v["experiments"]["E1"]["rows"]["FT"]["options"].update(lr=0.05))
    expected = {"demo": 1, "demo_row": 1, "demo_table": 1, "demo_claims": 1, "demo_report": 1, "demo_verdict": 1}
    assert project.planned("demo") == expected
    project.snakemake("demo")
    changed = [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert [path.parent.name for path in changed] == ["FT"]


def test_an_edited_method_runs_the_rows_that_use_it(project):
    method = project.folder / "papers" / "demo" / "method.py"
    method.write_text(method.read_text() + "\n# another line\n")
    assert project.planned("demo")["demo_row"] == 1
    assert "Smoothed" in project.reasons("demo")
    assert "records/E1/random10/FT" not in project.reasons("demo").split("rule demo_table")[0]


def test_more_memory_or_a_new_title_runs_no_row(project):
    project.config("demo", lambda v: v.update(title="Another", resources={"memory_mb": 1999, "threads": 1, "gpu": 0}))
    assert "demo_row" not in project.planned("demo")


def test_a_paper_runs_alone_from_its_own_snakefile(project):
    shutil.rmtree(project.folder / "results" / "demo")
    done = project.snakemake("-s", "papers/demo/Snakefile")
    assert (project.folder / "results/demo/mini/report.html").is_file(), done.stderr


def test_a_second_paper_with_the_same_recipe_trains_nothing(project):
    shutil.copytree(project.folder / "papers" / "demo", project.folder / "papers" / "twin")
    for path in (project.folder / "papers" / "twin").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            path.write_text(path.read_text().replace("demo", "twin"))
    planned = project.planned("twin")
    assert "stage" not in planned
    assert planned["twin_row"] == 3


def kill_when(project, condition, *arguments) -> None:
    """Start the engine and kill -9 its whole process group once `condition` holds."""
    process = project.start(*arguments)
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition(), process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("phase", ["stages", "rows", "report"])
def test_after_kill_9_the_same_command_ends_with_the_same_numbers(project, phase):
    wanted = metrics(project.folder)
    shutil.rmtree(project.folder / "results")
    shutil.rmtree(project.folder / "resources")
    results = project.folder / "results"
    condition = {
        "stages": lambda: any(results.glob("stages/*/work")),
        "rows": lambda: any(results.glob("work/*")),
        "report": lambda: any(results.glob("demo/mini/tables.json")),
    }[phase]
    kill_when(project, condition, "demo")
    project.snakemake("demo")
    assert metrics(project.folder) == wanted
    assert not list(results.rglob("*.part"))


def test_a_failed_row_leaves_the_others_alone_and_the_report_says_why(project):
    method = project.folder / "papers" / "demo" / "method.py"
    text = method.read_text()
    method.write_text(text.replace("    context.fit(", '    raise RuntimeError("broken on purpose")\n    context.fit('))
    project.config("demo", lambda v: v["experiments"]["E1"]["rows"]["FT"]["options"].update(lr=0.03))
    done = project.snakemake("--keep-going", "demo", check=False)
    assert done.returncode != 0
    report = (project.folder / "results/demo/mini/report.md").read_text()
    assert "broken on purpose" in report
    table = json.loads((project.folder / "results/demo/mini/tables.json").read_text())
    status = {(cell["row"], cell["status"]) for cell in table["cells"] if cell["metric"] == "UA"}
    assert status == {("Retrain", "measured"), ("FT", "measured"), ("Smoothed", "failed")}
    method.write_text(text)
    project.snakemake("demo")
    assert "broken on purpose" not in (project.folder / "results/demo/mini/report.md").read_text()


def test_a_bad_configuration_is_one_line_before_any_job(project):
    project.config("demo", lambda v: v["experiments"]["E1"]["rows"]["FT"]["options"].update(learning_rate=1))
    done = project.snakemake("demo", check=False)
    assert done.returncode == 2
    message = "error: papers/demo/config/mini.yaml: E1: row 'FT': learning_rate: unknown key"
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "rule " not in done.stdout


def test_an_unknown_scale_is_one_line(project):
    done = project.snakemake("demo", "--config", "scale=ful", check=False)
    assert done.returncode == 2
    assert "papers/demo/config/ful.yaml: no such scale (did you mean 'full'?)" in done.stderr


def test_a_damaged_record_is_named(project):
    wanted = metrics(project.folder)
    record = next((project.folder / "results/demo/mini/records/E1/random10/FT").glob("*.json"))
    record.write_text(record.read_text()[:100])
    done = project.snakemake("demo", check=False)
    assert done.returncode != 0
    message = f"{record.relative_to(project.folder)}: damaged record"
    assert f"error: {message}" in (project.folder / "results/demo/mini/logs/table.log").read_text()
    assert message in (project.folder / "results/demo/mini/report.md").read_text().replace("\\_", "_")
    record.unlink()
    project.snakemake("demo")
    assert metrics(project.folder) == wanted


def test_a_row_that_failed_once_is_run_again_by_the_same_command(project):
    """What failed for a passing reason leaves no edited file behind: the partial report must not seem up to date."""
    wanted = metrics(project.folder)
    folder = project.folder / "results/demo/mini"
    shutil.rmtree(folder / "records/E1/random10/FT")
    (folder / "verdict.json").unlink()
    shutil.rmtree(folder / "done")
    (folder / "records/E1/random10/FT").write_text("in the way")  # the record cannot be written
    assert project.snakemake("demo", check=False).returncode != 0
    assert (folder / "tables.json").is_file()
    (folder / "records/E1/random10/FT").unlink()
    project.snakemake("demo")
    assert metrics(project.folder) == wanted


def test_two_runs_in_one_folder_do_not_mix(project):
    shutil.rmtree(project.folder / "results")
    first = project.start("demo")
    deadline = time.monotonic() + 60
    while not any((project.folder / "results").glob("stages/*/work")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = project.snakemake("demo", check=False)
    assert second.returncode != 0
    assert "cannot be locked" in second.stderr + second.stdout
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output


def test_a_job_file_runs_on_a_bare_machine_without_the_engine(project, tmp_path):
    wanted = metrics(project.folder)
    job = next((project.folder / "results/demo/mini/jobs/E1/random10/Smoothed").glob("*.json"))
    bare = tmp_path / "bare"
    for name in ("shared", "papers", "data_manifests"):
        shutil.copytree(project.folder / name, bare / name)
    shutil.copy(job, bare / "job.json")
    project.environment["PYTHONPATH"] = str(bare)
    project.folder, home = bare, project.folder
    project.python("-m", "shared.run", "row", "job.json")
    assert metrics(bare) == {k: v for k, v in wanted.items() if "Smoothed" in k}
    assert home != bare


def test_the_search_writes_its_choice_and_the_choice_is_used(project):
    project.config("demo", lambda v: v["experiments"]["E1"]["rows"]["Smoothed"].update(grid={"lr": [0.01, 0.02]}))
    project.config("demo", lambda v: v["experiments"]["E1"]["rows"]["FT"].update(grid={"lr": [0.02, 0.05]}))
    project.python("-m", "shared.tune", "demo", "--scale", "mini")
    folder = project.folder / "papers" / "demo" / "tuning"
    lines = (folder / "mini.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    assert sum(line.endswith(",yes") for line in lines) == 2
    assert "Smoothed" in (folder / "mini.yaml").read_text()
    assert "demo_row" not in project.planned("demo") or project.planned("demo")["demo_row"] <= 2
