"""The choice of hyper-parameters: the criterion, its direction, and what is written down."""

import csv

import pytest
import yaml

from shared import tune
from shared.classification.protocol import DERIVED
from shared.errors import RecordError
from shared.results.records import Cost, Metric, Record, write_records

GAP = next(derived for derived in DERIVED if derived.name == "Avg. Gap").model_dump()
UNITS = dict.fromkeys(GAP["of"], "%")
# lr -> UA, RA, TA, MIA; the middle one is Retrain's but for 1 point, the last is the fastest
POINTS = {0.1: [10.0, 99.0, 90.0, 20.0], 0.2: [5.0, 99.0, 94.0, 13.0], 0.3: [0.0, 99.9, 95.0, 2.0]}
RETRAIN = [5.0, 100.0, 94.0, 13.0]


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "papers_root", lambda: tmp_path / "papers")

    def record(name, values, minutes):
        metrics = [Metric(metric, value, "%") for metric, value in zip(GAP["of"], values, strict=True)]
        cost = Cost(minutes * 60, 1, 1.0, "cpu")
        path = f"{name}.json"
        write_records(
            path, [Record("demo", "mini", "E1", "ten", name, 0, [*metrics, Metric("RTE", minutes * 60, "s")], cost)]
        )
        return path

    points = [{"options": {"lr": lr}, "record": record(f"FT-{lr}", values, 1 / lr)} for lr, values in POINTS.items()]
    searched = [
        {"row": "Retrain", "points": [{"options": {}, "record": record("Retrain", RETRAIN, 50.0)}]},
        {"row": "FT", "points": points},
    ]
    return {
        "kind": "tune",
        "paper": "demo",
        "scale": "mini",
        "metric": "Avg. Gap",
        "better": "lower",
        "derived": GAP,
        "units": UNITS,
        "seed": 0,
        "searched": [{"experiment": "E1", "setting": "ten", **search} for search in searched],
        "output": "tuned.json",
    }


def chosen(tmp_path):
    values = yaml.safe_load((tmp_path / "papers/demo/tuning/mini.yaml").read_text())
    return values["experiments"]["E1"]["rows"]["FT"]["per_setting"]["ten"]


def test_the_smallest_gap_is_chosen_and_the_search_is_written_down(job, tmp_path):
    tune.choose(job)
    assert chosen(tmp_path) == {"lr": 0.2}
    rows = list(csv.reader((tmp_path / "papers/demo/tuning/mini.csv").open()))
    assert rows[0] == ["experiment", "setting", "row", "options", "UA", "RA", "TA", "MIA", "Avg. Gap", "chosen"]
    assert rows[2] == ["E1", "ten", "FT", "lr=0.2", "5", "99", "94", "13", "0.25", "yes"]
    assert [row[-1] for row in rows[1:]] == ["", "yes", ""]
    assert "smallest Avg. Gap" in (tmp_path / "papers/demo/tuning/mini.yaml").read_text()


def test_a_criterion_may_be_maximised(job, tmp_path):
    tune.choose({**job, "better": "higher"})
    assert chosen(tmp_path) == {"lr": 0.3}
    assert "largest Avg. Gap" in (tmp_path / "papers/demo/tuning/mini.yaml").read_text()


def test_a_measured_criterion_is_converted_and_needs_no_reference(job, tmp_path):
    tune.choose({**job, "metric": "RTE", "derived": None, "units": {"RTE": "min"}, "searched": job["searched"][1:]})
    assert chosen(tmp_path) == {"lr": 0.3}
    rows = list(csv.reader((tmp_path / "papers/demo/tuning/mini.csv").open()))
    assert rows[0][4:] == ["RTE", "chosen"]
    assert [row[4] for row in rows[1:]] == ["10", "5", "3.333"]


def test_a_cost_may_be_the_criterion(job, tmp_path):
    tune.choose({**job, "metric": "seconds", "derived": None, "units": {"seconds": "s"}})
    assert chosen(tmp_path) == {"lr": 0.3}


def test_ties_go_to_the_earlier_point(job, tmp_path):
    tune.choose({**job, "metric": "steps", "derived": None, "units": {"steps": "steps"}})
    assert chosen(tmp_path) == {"lr": 0.1}


def test_a_record_without_the_metric_names_itself(job):
    with pytest.raises(RecordError, match=r"FT-0\.1\.json: tuning needs the metric 'AUS'"):
        tune.choose({**job, "metric": "AUS", "derived": None, "units": {"AUS": ""}})
