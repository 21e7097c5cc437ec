"""Studies: rows that are plain functions, planned, run, resumed and tabulated as every row is."""

import json
import sys
from pathlib import Path

import pytest

from shared import options, run
from shared.errors import ConfigError
from shared.results import tables
from shared.results.records import read_records

FUNCTIONS = """
from pathlib import Path

from shared.options import Options
from shared.results.records import Metric
from shared.study import Findings


class SlopeOptions(Options):
    slope: float = 1.0
    noise: float = 0.0


def slope(options: SlopeOptions, seed: int) -> Findings:
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{seed} ")
    if Path("kill").exists() and seed == 2:
        raise KeyboardInterrupt
    return Findings([Metric("slope", options.slope + seed * options.noise, "")], {"seed": seed})


def number(options: Options, seed: int) -> float:
    return 1.0


def twice(options: Options, seed: int) -> Findings:
    return Findings([Metric("slope", 1.0), Metric("slope", 2.0)])
"""
STUDY = {
    "title": "A theorem",
    "study": True,
    "metrics": ["slope"],
    "settings": {
        "clean": {"label": "no noise"},
        "noisy": {"label": "noise", "options": {"noise": 0.1}},
    },
    "rows": {
        "one": {"method": "toy_studies:slope"},
        "two": {"like": "T1/one", "options": {"slope": 2.0}, "per_setting": {"noisy": {"noise": 0.5}}},
    },
}


@pytest.fixture
def study(paper, tmp_path, monkeypatch):
    """Plans a paper with studies only; its functions are in a file of the working folder."""
    (tmp_path / "toy_studies.py").write_text(FUNCTIONS)
    monkeypatch.setattr(options, "_root", lambda: tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_studies", raising=False)

    def build(change=None):
        def replace(values):
            del values["tasks"], values["tuning"]
            values["seeds_per_job"] = 3
            values["metrics"] = [{"name": "slope", "unit": "", "better": "higher", "label": "Slope"}]
            values["experiments"] = {"T1": json.loads(json.dumps(STUDY))}
            if change:
                change(values["experiments"]["T1"])

        return paper(replace)

    return build


def jobs(built):
    return {(cell.setting, cell.row): cell.jobs[0] for cell in built.cells}


def finish(built):
    built.write()
    for job in jobs(built).values():
        assert run.main(["row", str(job.path), "--gpus", "0"]) == 0


def test_a_study_has_no_task_no_track_and_no_stages(study, tmp_path):
    built = study()
    content = jobs(built)["clean", "one"].content
    assert built.stages == {}
    assert content["run"] == "shared.study:run_row"
    assert content["stages"] == {"1": {}, "2": {}, "3": {}}
    assert not {"task", "track"} & set(content)
    assert jobs(built)["clean", "one"].inputs == ["toy_studies.py"]


def test_options_of_a_setting_lie_over_every_row_and_per_setting_wins(study):
    found = {place: job.content["options"] for place, job in jobs(study()).items()}
    assert found == {
        ("clean", "one"): {"slope": 1.0, "noise": 0.0},
        ("clean", "two"): {"slope": 2.0, "noise": 0.0},
        ("noisy", "one"): {"slope": 1.0, "noise": 0.1},
        ("noisy", "two"): {"slope": 2.0, "noise": 0.5},
    }
    rows = study().spec["experiments"]["T1"]["rows"]
    assert rows["one"]["per_setting"] == {"noisy": {"noise": 0.1}}
    assert rows["two"]["per_setting"] == {"noisy": {"noise": 0.5}}


def test_options_of_a_setting_in_an_ordinary_experiment(paper):
    built = paper(lambda v: v["experiments"]["E1"]["settings"]["fifty"].update(options={"lr": 0.07}) or drop_retrain(v))
    options_of = {(cell.setting, cell.row): cell.jobs[0].content["options"] for cell in built.cells}
    assert options_of["fifty", "SalUn"]["lr"] == options_of["fifty", "FT"]["lr"] == 0.07
    assert options_of["fifty", "SalUn"]["keep"] == 0.3
    assert options_of["ten", "SalUn"]["lr"] == 0.02


def drop_retrain(values):
    del values["experiments"]["E1"]["rows"]["Retrain"]


def test_data_of_a_study_is_pulled_first(study):
    job = jobs(study(lambda e: e.update(manifests=["digits"])))["clean", "one"]
    assert job.content["manifests"] == ["digits"]
    assert job.inputs[1].endswith("digits/pulled.json")


def test_a_study_runs_into_records_and_tables(study):
    built = study()
    finish(built)
    records = read_records(jobs(built)["noisy", "two"].output)
    assert [record.metric("slope") for record in records] == [2.5, 3.0, 3.5]
    assert [record.extras for record in records] == [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    assert all(record.cost.seconds >= 0 and record.cost.peak_memory_mb > 0 for record in records)
    assert records[0].provenance["job_digest"]
    Path("published.csv").write_text("table,setting,row,metric,value,spread,unit,better,source,checked\n")
    cells = tables.build({**built.spec, "published_csv": str(Path("published.csv").resolve())}).by_key()
    cell = cells["T1", "noisy", "two", "slope"]
    assert (cell.mean, cell.std, cell.status) == (3.0, pytest.approx(0.5), "measured")


def test_finished_seeds_survive_a_kill(study):
    built = study()
    built.write()
    job = jobs(built)["clean", "one"]
    Path("kill").touch()
    with pytest.raises(KeyboardInterrupt):
        run.main(["row", str(job.path), "--gpus", "0"])
    Path("kill").unlink()
    assert run.main(["row", str(job.path), "--gpus", "0"]) == 0
    assert Path("calls.txt").read_text() == "1 2 2 3 "
    assert len(read_records(job.output)) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "study 'toy_studies:number' returned a float; it must return shared.study.Findings"),
        ("twice", "study 'toy_studies:twice' returned the metric 'slope' twice"),
    ],
)
def test_what_a_study_must_not_return_is_one_line(study, capsys, function, message):
    def change(experiment):
        experiment["settings"] = {"clean": {"label": "no noise"}}
        experiment["rows"] = {"one": {"method": f"toy_studies:{function}"}}

    built = study(change)
    built.write()
    assert run.main(["row", str(jobs(built)["clean", "one"].path), "--gpus", "0"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["settings"]["clean"].update(task="digits"), "setting 'clean': task: a study has no task"),
        (lambda e: e["settings"]["clean"].update(change={"a": 1}), "setting 'clean': change: a study has no task"),
        (lambda e: e["rows"]["one"].update(method="finetune"), "row 'one': method 'finetune' is not a function of"),
        (lambda e: e["rows"]["one"].update(needs=["retrain"]), "row 'one': needs: a study has no task"),
        (lambda e: e["rows"]["one"].update(grid={"slope": [1.0]}), "row 'one': grid: a study is not tuned"),
        (lambda e: e.update(study=False), "setting 'clean': no task; name one of 'tasks'"),
        (
            lambda e: e["settings"]["noisy"]["options"].update(nose=1.0),
            r"row 'one': nose: unknown key \(did you mean 'noise'\?\)",
        ),
        (lambda e: e.update(manifests=["digts"]), "no data set 'digts'.*did you mean 'digits'"),
        (
            lambda e: e["rows"]["one"].update(method="toy_studies:slop"),
            r"has no function 'slop' \(did you mean 'slope'\?\)",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_experiment_and_key(study, change, message):
    with pytest.raises(ConfigError, match=message) as error:
        study(change)
    assert str(error.value).startswith("papers/demo/config/full.yaml: T1: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["experiments"]["E4"].update(manifests=["digits"]), "E4: manifests: only a study names its data"),
        (lambda v: v["experiments"]["E1"]["settings"]["ten"].pop("task"), "E1: setting 'ten': no task"),
        (
            lambda v: v["experiments"].update(
                T1={**STUDY, "metrics": ["UA"], "rows": {"FT": {"like": "E1/FT"}}, "settings": {"a": {"label": "a"}}}
            ),
            "T1: row 'FT': like 'E1/FT' is no row of a study, this one is one",
        ),
    ],
)
def test_a_study_and_a_table_are_not_mixed_up(paper, change, message):
    with pytest.raises(ConfigError, match=message):
        paper(change)
