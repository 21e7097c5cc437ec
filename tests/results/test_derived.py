"""Derived metrics: of means, of each seed, and what is said where there is no value."""

import sys
import types

import pytest

from shared.errors import ConfigError
from shared.metrics.declared import DerivedSpec
from shared.results import tables
from shared.results.derived import UndefinedError, derived_value
from shared.results.records import Metric, Record, read_records, write_records

RATIO = {
    "name": "speed-up",
    "unit": "",
    "better": "higher",
    "label": "Retrain's time / ours",
    "reference": "Retrain",
    "of": ["RTE"],
    "function": "scores_for_test:ratio",
}


@pytest.fixture(autouse=True)
def scores(monkeypatch):
    """A module of a paper with its functions."""
    module = types.ModuleType("scores_for_test")
    module.ratio = lambda values, reference: reference["RTE"] / values["RTE"]
    module.rest = lambda values, reference: 100 - values["MIA"] - len(reference)
    module.other = lambda values, reference: values["TA"]
    module.endless = lambda values, reference: float("inf")
    monkeypatch.setitem(sys.modules, "scores_for_test", module)


def built(case, **changes):
    case.spec["derived"].append({**RATIO, **changes})
    return tables.build(case.spec).by_key()


def set_metric(case, row, values):
    """Give metrics of one row new values by seed."""
    path = case.record("random10", row)
    records = []
    for record in read_records(path):
        metrics = [Metric(m.name, values[record.seed], m.unit) if m.name == "RTE" else m for m in record.metrics]
        records.append(Record(**{**vars(record), "metrics": metrics}))
    write_records(path, records)


def test_a_value_is_computed_of_means_and_of_every_seed(case):
    set_metric(case, "SalUn", {1: 60.0, 2: 60.0, 3: 120.0, 4: 120.0, 5: 240.0})  # seconds
    set_metric(case, "Retrain", dict.fromkeys(range(1, 6), 1200.0))
    cell = built(case)["E1", "random10", "SalUn", "speed-up"]
    assert cell.mean == pytest.approx(20 / 2)  # of the mean time of 2 min, not the mean of the five ratios (13)
    assert cell.values == {1: 20.0, 2: 20.0, 3: 10.0, 4: 10.0, 5: 5.0}
    assert cell.std == pytest.approx(6.7082, abs=1e-4)
    assert (cell.n, cell.better, cell.listed, cell.reason) == (5, "higher", False, "")


def test_the_reference_row_is_its_own_reference(case):
    cell = built(case)["E1", "random10", "Retrain", "speed-up"]
    assert (cell.mean, set(cell.values.values())) == (1.0, {1.0})


def test_without_a_reference_the_second_mapping_is_empty(case):
    cells = built(case, name="member_share", of=["MIA"], reference=None, function="scores_for_test:rest")
    assert cells["E1", "random10", "SalUn", "member_share"].mean == pytest.approx(100 - 14.39)


def test_a_reference_that_the_experiment_lacks_is_the_reason(case):
    case.spec["experiments"]["E1"]["metrics"].append("speed-up")
    cell = built(case, reference="Original")["E1", "random10", "SalUn", "speed-up"]
    assert (cell.status, cell.reason) == ("missing", "no row Original to measure speed-up against")


def test_a_metric_that_a_record_lacks_is_the_reason(case):
    path = case.record("random10", "FT")
    without = [Record(**{**vars(r), "metrics": r.metrics[:-1]}) for r in read_records(path)]
    write_records(path, without)
    case.spec["experiments"]["E1"]["metrics"].append("speed-up")
    cell = built(case)["E1", "random10", "FT", "speed-up"]
    assert (cell.status, cell.reason) == ("missing", "the record of this row holds no RTE")


def test_seeds_without_a_value_are_named_and_leave_the_others(case):
    set_metric(case, "SalUn", {1: 0.0, 2: 60.0, 3: 60.0, 4: 60.0, 5: 60.0})
    cell = built(case)["E1", "random10", "SalUn", "speed-up"]
    assert (cell.n, cell.reason) == (4, "no speed-up for seeds 1")
    assert sorted(cell.values) == [2, 3, 4, 5]


def test_a_mean_without_a_value_is_missing(case):
    set_metric(case, "SalUn", dict.fromkeys(range(1, 6), 0.0))
    case.spec["experiments"]["E1"]["metrics"].append("speed-up")
    cell = built(case)["E1", "random10", "SalUn", "speed-up"]
    assert (cell.status, cell.mean) == ("missing", None)
    assert "speed-up is not defined here (float division by zero)" in cell.reason


def test_an_incomplete_reference_is_said(case):
    path = case.record("random10", "Retrain")
    write_records(path, read_records(path)[:3])
    cell = built(case)["E1", "random10", "SalUn", "speed-up"]
    assert (cell.n, cell.reason) == (3, "Retrain: no record of seeds 4, 5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "scores_for_test:other"}, "asks for 'TA', but is given RTE of the row and of Retrain"),
        ({"function": "scores_for_test:gone"}, "'scores_for_test:gone': .*gone"),
        ({"function": "no_such_module:f"}, "derived metric 'speed-up': function 'no_such_module:f': No module"),
    ],
)
def test_a_function_that_cannot_be_used_is_one_line(case, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        built(case, **changes)
    assert "\n" not in str(error.value)


def test_an_infinite_value_is_none(case):
    derived = DerivedSpec(**{**RATIO, "function": "scores_for_test:endless"})
    with pytest.raises(UndefinedError, match=r"speed-up is not defined here \(inf\)"):
        derived_value(derived, {"RTE": 1.0}, {"RTE": 1.0})


def test_derived_numbers_stand_beside_published_ones_and_in_claims(case):
    case.write_published(
        [["Table 1", "CIFAR-10 ResNet-18 random 10%", "SalUn", "speed-up", 16.27, "", "", "higher", "paper", "read"]]
    )
    case.claims({"expr": 'cell("E1", "random10", "SalUn", "speed-up") > 16', "level": {"default": "hard"}})
    case.spec["derived"].append(RATIO)
    case.spec["experiments"]["E1"]["metrics"].append("speed-up")
    case.run()
    cell = tables.load(case.folder).by_key()["E1", "random10", "SalUn", "speed-up"]
    assert cell.delta == pytest.approx(43.29 / 2.66 - 16.27)
    assert '"status": "holds"' in (case.folder / "claims.json").read_text()
