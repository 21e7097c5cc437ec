"""E3 against numbers that were computed from the same logs by an independent script, six decimals."""

import csv

import pytest

from papers.tofu.studies import LogOptions, aggregate_log
from shared.errors import DataError

FULL, RETAIN = "phi_full_wd0.01.json", "phi_retain90_wd0.01.json"
NAMES = {"Probability": "probability", "ROUGE-L recall": "rouge_l_recall", "Truth ratio": "truth_ratio"}
SETS = ("retain", "real authors", "world facts", "forget")
OTHERS = {
    "Model utility": "model_utility",
    "Forget quality vs retain90": "forget_quality",
    "KS statistic vs retain90": "ks_statistic",
}


@pytest.fixture
def pulled(data_mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_MIRROR", str(data_mirror))
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))


def measured(log, **options):
    findings = aggregate_log(LogOptions(log=log, retain=RETAIN, **options), seed=1)
    return {metric.name: metric.value for metric in findings.metrics}


def our_name(metric):
    kind, _, questions = metric.partition(" ")
    if metric in OTHERS:
        return OTHERS[metric]
    kind = next(name for name in NAMES if metric.startswith(name))
    questions = metric.removeprefix(kind).strip()
    assert questions in SETS
    return f"{NAMES[kind]}_{questions.replace(' ', '_')}"


@pytest.mark.parametrize("row", ["full", "retain90"])
def test_every_number_of_the_shipped_logs(pulled, data_mirror, row):
    path = data_mirror.parent / "papers" / "tofu" / "oracles.csv"
    if not path.is_file():
        pytest.skip("needs the independently computed numbers beside DATA_MIRROR")
    with path.open() as stream:
        lines = [
            line
            for line in csv.DictReader(stream)
            if line["setting"] == "Phi-1.5 forget10 first 300 rows wd0.01" and line["row"] == row
        ]
    assert len(lines) >= 13
    for line in lines:
        kind = "arithmetic" if "arithmetic" in line["table"] else "geometric"
        found = measured(FULL if row == "full" else RETAIN, truth_ratio=kind)[our_name(line["metric"])]
        assert found == pytest.approx(float(line["value"]), rel=1e-6, abs=5e-7), line["metric"]


def test_known_numbers(pulled):
    found = measured(FULL)
    assert found["model_utility"] == pytest.approx(0.522074, abs=5e-7)
    assert found["forget_quality"] == pytest.approx(2.194274e-16, rel=1e-6)
    assert measured(FULL, truth_ratio="arithmetic")["model_utility"] == pytest.approx(0.503353, abs=5e-7)
    assert measured(RETAIN)["forget_quality"] == 1.0


def test_a_log_that_is_not_there_is_one_line(pulled):
    with pytest.raises(DataError, match=r"phi_retain95.*no such file"):
        measured("phi_retain95.json")
