"""What a job does when something goes wrong: one clear line, a reason for the report, nothing half-written."""

import errno
import json

import pytest

from shared import run
from shared.errors import RecordError
from shared.results.jobs import read_job
from shared.results.records import Cost, Metric, Record, read_records, write_records


def record(seed: int = 1) -> Record:
    metrics = [Metric("UA", 10.0, "%", "closest_to_retrain")]
    return Record("demo", "mini", "E1", "ten", "FT", seed, metrics, Cost(1.0, 10, 100.0, "cpu"))


def stage_job(tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "import_path", lambda path: function)
    job = {"kind": "stage", "run": "x:y", "manifests": [], "output": "results/stages/abc/record.json"}
    (tmp_path / "stage.json").write_text(json.dumps(job))
    return run.main(["stage", "stage.json", "--gpus", "0"])


def test_records_survive_the_disk(tmp_path):
    write_records(tmp_path / "r.json", [record(1), record(2)])
    assert read_records(tmp_path / "r.json") == [record(1), record(2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged record"),
        ('{"schema": 1}', "damaged record"),
        ('{"schema": 99, "records": []}', "schema 99, this code reads 1"),
        ('{"schema": 1, "records": [{"paper": "x"}]}', "damaged record"),
        ("[1, 2]", "damaged record"),
    ],
)
def test_a_damaged_record_names_the_file_and_what_to_do(tmp_path, content, message):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(RecordError, match=message) as error:
        read_records(tmp_path / "r.json")
    assert str(tmp_path / "r.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_metric_that_is_not_finite_is_refused():
    with pytest.raises(RecordError, match="UA is nan"):
        Metric("UA", float("nan"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"no": "kind"}'])
def test_a_damaged_job_file_names_itself(tmp_path, content):
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(RecordError, match=r"job\.json"):
        read_job(tmp_path / "job.json")


def test_a_full_disk_is_one_line_and_leaves_no_record(tmp_path, monkeypatch, capsys):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "results/stages/abc/model.safetensors")

    assert stage_job(tmp_path, monkeypatch, full) == 2
    assert "model.safetensors: the disk is full; free space" in capsys.readouterr().err
    assert not (tmp_path / "results/stages/abc/record.json").exists()
    assert "disk is full" in json.loads((tmp_path / "results/stages/abc/record.error.json").read_text())["message"]


def test_a_bug_keeps_its_traceback_and_leaves_its_reason(tmp_path, monkeypatch, capsys):
    def broken(*_arguments):
        raise ZeroDivisionError("on purpose")

    assert stage_job(tmp_path, monkeypatch, broken) == 1
    assert "Traceback" in capsys.readouterr().err
    reason = json.loads((tmp_path / "results/stages/abc/record.error.json").read_text())
    assert reason["message"] == "ZeroDivisionError: on purpose"


def test_a_finished_stage_is_not_made_again_and_its_old_reason_goes(tmp_path, monkeypatch):
    calls = []

    def train(*_arguments):
        calls.append(1)
        return record()

    (tmp_path / "results/stages/abc").mkdir(parents=True)
    (tmp_path / "results/stages/abc/record.error.json").write_text("{}")
    assert stage_job(tmp_path, monkeypatch, train) == 0
    assert stage_job(tmp_path, monkeypatch, train) == 0
    assert calls == [1]
    assert not (tmp_path / "results/stages/abc/record.error.json").exists()
    assert read_records(tmp_path / "results/stages/abc/record.json")[0].provenance["commit"]


def test_seeds_that_were_finished_before_a_kill_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    computed = []

    def method(_job, seed, _stages, _work, _threads):
        computed.append(seed)
        if seed == 2 and computed.count(2) == 1:
            raise KeyboardInterrupt  # the kill
        return [Metric("UA", float(seed), "%")], Cost(1.0, 1, 1.0, "cpu"), {}

    monkeypatch.setattr(run, "import_path", lambda path: method)
    names = dict.fromkeys(("paper", "scale", "experiment", "setting", "row"), "x")
    job = {"kind": "row", **names, "run": "x:y", "manifests": [], "seeds": [1, 2, 3],
           "stages": {"1": {}, "2": {}, "3": {}}, "output": "records/x.json"}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run.run_row(job, 1)
    run.run_row(job, 1)
    assert computed == [1, 2, 2, 3]
    assert [r.metric("UA") for r in read_records("records/x.json")] == [1.0, 2.0, 3.0]
    assert not run.work_folder(job).exists()


def test_a_command_without_a_job_file_says_so(capsys):
    with pytest.raises(SystemExit):
        run.main(["row"])
    assert "row needs a job file" in capsys.readouterr().err
