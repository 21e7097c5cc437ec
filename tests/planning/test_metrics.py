"""Metrics of a paper's own, measured and derived: what may be named where, and what is refused before any job."""

import pytest

from shared.errors import ConfigError
from shared.metrics import declared
from shared.metrics.declared import DerivedSpec

CROSSING = {"name": "crossing", "unit": "fraction", "better": "higher", "label": "Boundaries crossed"}
SPEED = {
    "name": "speed-up",
    "unit": "",
    "better": "higher",
    "label": "Retrain's time / ours",
    "reference": "Retrain",
    "of": ["RTE"],
    "function": "shared.metrics.gaps:average_gap",
}


def declare(metrics=(), derived=(), listed=()):
    def change(values):
        values["metrics"], values["derived"] = list(metrics), list(derived)
        values["experiments"]["E1"]["metrics"] += listed

    return change


def test_own_metrics_enter_the_spec_beside_those_of_the_track(paper):
    built = paper(declare([CROSSING], [SPEED], ["crossing", "speed-up"]))
    assert built.spec["metrics"][-1] == CROSSING
    assert built.spec["derived"][-1] == SPEED
    assert [d["name"] for d in built.spec["derived"][:-1]] == ["gap_UA", "gap_RA", "gap_TA", "gap_MIA", "Avg. Gap"]
    assert built.spec["experiments"]["E1"]["metrics"][-2:] == ["crossing", "speed-up"]


def test_an_edited_function_changes_the_spec_and_so_the_tables(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(declared, "ROOT", tmp_path)
    change = declare([], [{**SPEED, "function": "scores:speed"}])
    (tmp_path / "scores.py").write_text("def speed(values, reference):\n    return 1.0\n")
    before = paper(change).spec
    assert paper(change).spec == before
    (tmp_path / "scores.py").write_text("def speed(values, reference):\n    return 2.0\n")
    assert paper(change).spec != before


def test_declaring_metrics_changes_no_job(paper):
    before = {path: job.content for path, job in paper().jobs().items()}
    after = {path: job.content for path, job in paper(declare([CROSSING], [SPEED])).jobs().items()}
    assert before == after


def test_a_derived_metric_may_be_made_of_own_metrics_and_costs_and_of_no_reference(paper):
    own = {**SPEED, "of": ["crossing", "seconds"], "reference": None}
    built = paper(declare([CROSSING], [own]))
    assert built.metrics.units("speed-up") == {"crossing": "fraction", "seconds": "s"}
    assert built.metrics.units("RTE") == {"RTE": "min"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (declare([{**CROSSING, "name": "UA"}]), "metrics: 'UA' is a metric of the track already; rename it"),
        (declare([CROSSING, CROSSING]), "metrics: 'crossing' is a metric of this paper already"),
        (declare([{**CROSSING, "name": "seconds"}]), "metrics: 'seconds' is a metric of every record already"),
        (declare([], [{**SPEED, "name": "gap_UA"}]), "derived: 'gap_UA' is a metric of the track already"),
        (declare([CROSSING], [{**SPEED, "name": "crossing"}]), "derived: 'crossing' is a metric of this paper"),
        (
            declare([], [{**SPEED, "of": ["RTT"]}]),
            r"derived: 'speed-up': of: metric 'RTT' does not exist \(did you mean 'RTE'\?\)",
        ),
        (declare([], [{**SPEED, "of": ["gap_UA"]}]), "'speed-up': of: 'gap_UA' is itself derived"),
        (
            declare([], [{**SPEED, "reference": "Retrian"}]),
            r"'speed-up': reference 'Retrian' names no row \(did you mean 'Retrain'\?\)",
        ),
        (
            declare([], [{**SPEED, "function": "papers.demo.scores:aus"}]),
            "'speed-up': function 'papers.demo.scores:aus': no file papers/demo/scores.py",
        ),
        (
            declare([], [{**SPEED, "function": "shared.metrics.gaps:averge_gap"}]),
            r"gaps.py has no function 'averge_gap' \(did you mean 'average_gap'\?\)",
        ),
        (declare([], [{**SPEED, "function": "average_gap"}]), "'average_gap' is not an import path"),
        (declare([], [{**SPEED, "of": []}]), "derived.0.of: List should have at least 1 item"),
        (declare([], [{**SPEED, "oof": []}]), "derived.0.oof: unknown key"),
        (declare([{"name": "crossing"}]), "metrics.0.unit: Field required"),
        (
            lambda v: v["tuning"].update(metric="Avg Gap"),
            r"tuning: metric 'Avg Gap' does not exist \(did you mean 'Avg. Gap'\?\)",
        ),
        (lambda v: v["tuning"].update(better="most"), "tuning.better"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_section(paper, change, message):
    with pytest.raises(ConfigError, match=message) as error:
        paper(change)
    assert str(error.value).startswith("papers/demo/config/full.yaml: ")
    assert "\n" not in str(error.value)


def test_the_search_runs_the_row_that_its_criterion_refers_to(paper):
    def change(values):
        declare([], [{**SPEED, "reference": "SalUn"}])(values)
        values["tuning"].update(metric="speed-up", better="higher")

    built = paper(change)
    assert {search.row for search in built.searches} == {"SalUn", "FT"}
    built.write_tuning()
    assert [search.row for search in paper(lambda v: v["tuning"].update(metric="RTE")).searches] == ["FT", "FT"]


def test_a_search_without_the_row_it_refers_to_is_refused(paper):
    with pytest.raises(ConfigError, match=r"E1: tuning by 'Avg\. Gap' needs the row 'Retrain' in this experiment"):
        paper(lambda v: v["experiments"]["E1"]["rows"].pop("Retrain")).write_tuning()


def test_gaps_of_the_track_are_declared_as_before():
    from shared.classification.protocol import DERIVED, METRICS

    unit = {metric.name: metric.unit for metric in METRICS}
    for derived in DERIVED:
        assert isinstance(derived, DerivedSpec)
        assert {unit[part] for part in derived.of} == {derived.unit}
        assert (derived.reference, derived.better) == ("Retrain", "lower")
    assert DERIVED[0].label == "|UA - Retrain|"
