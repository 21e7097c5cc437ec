import json
import subprocess
import sys

import pytest

from shared.errors import ConfigError
from shared.results import claims, tables
from shared.results.verdict import judge, verdict


def cell(row, metric="Avg. Gap", setting="random10", function="cell"):
    return f'{function}("E1", "{setting}", "{row}", "{metric}")'


def evaluated(case, expr, **more):
    case.claims({"expr": expr, **more})
    return claims.evaluate(claims.check_claims(case.claims_yaml, case.spec), tables.build(case.spec))[0]


def test_claim_that_holds_shows_numbers_margin_and_seeds(case):
    """SalUn 1.15 < RL 7.15: margin 6.0, in every seed."""
    found = evaluated(case, f"{cell('SalUn')} < {cell('RL')}")
    assert (found.status, found.level, found.seeds_agree, found.seeds_total) == (
        "holds",
        "reported",
        5,
        5,
    )
    compared = found.comparisons[0]
    assert (compared["left"], compared["right"]) == (
        pytest.approx(1.1525),
        pytest.approx(7.15, abs=0.01),
    )
    assert compared["margin"] == pytest.approx(6.0, abs=0.01)
    assert compared["margin_std"] > 0
    assert [(c["row"], c["metric"], c["n"]) for c in found.cells] == [
        ("RL", "Avg. Gap", 5),
        ("SalUn", "Avg. Gap", 5),
    ]


def test_claim_that_fails(case):
    found = evaluated(case, f"{cell('RL')} < {cell('SalUn')}")
    assert (found.status, found.seeds_agree) == ("fails", 0)
    assert found.comparisons[0]["margin"] == pytest.approx(-6.0, abs=0.01)


def test_others_leaves_out_the_row_and_the_reference(case):
    found = evaluated(case, f"{cell('SalUn')} < min({cell('SalUn', function='others')})")
    assert found.status == "holds"
    assert {c["row"] for c in found.cells} == {"SalUn", "FT", "RL", "GA", "BS"}
    assert found.comparisons[0]["right"] == pytest.approx(2.67, abs=0.02)


def test_published_claims_of_salun_hold_on_published_numbers(case):
    """C3, C4, C5, C7 of the paper: with the paper's means as ours, the paper's claims hold."""
    mia = [cell(row, "MIA") for row in ("RL", "Retrain", "SalUn")]
    gaps = [f"abs({cell(r, setting='random50')} - {cell(r)})" for r in ("SalUn", "BS")]
    for expr in (
        f"{mia[0]} - {mia[1]} > abs({mia[2]} - {mia[1]})",
        f"{gaps[0]} < {gaps[1]}",
        f"{cell('SalUn', 'gap_UA', 'random50')} <= 0.5",
        f"{cell('SalUn', 'steps')} <= 0.35 * {cell('Retrain', 'steps')}",
    ):
        assert evaluated(case, expr).status == "holds", expr


def test_seeds_disagree_where_the_spread_is_wide(case):
    """BS has UA 1.78 ± 2.52: below 1.5 in two seeds of five."""
    found = evaluated(case, f"{cell('BS', 'UA')} > 1.5")
    assert (found.status, found.seeds_agree, found.seeds_total) == ("holds", 3, 5)
    assert found.per_seed == {1: False, 2: False, 3: True, 4: True, 5: True}


def test_missing_cell_is_named(case):
    case.fail("random10", "GA", "out of memory")
    found = evaluated(case, f"{cell('SalUn')} < min({cell('SalUn', function='others')})")
    assert found.status == "not measured"
    assert found.reason == "E1 / random10 / GA / Avg. Gap: failed (out of memory (log: logs/row.log))"


def test_rows_that_are_not_planned_are_no_competitors(case):
    case.spec["cells"] = [c for c in case.spec["cells"] if c["row"] != "GA"]
    found = evaluated(case, f"{cell('SalUn')} < min({cell('SalUn', function='others')})")
    assert found.status == "holds"
    assert "GA" not in {c["row"] for c in found.cells}


def test_published_number_decides_only_if_it_was_read(case):
    assert evaluated(case, f"{cell('SalUn', 'UA')} <= {cell('SalUn', 'UA', function='published')}").status == "holds"
    with pytest.raises(ConfigError, match=r"claims\.yaml: claim C1: .* is recalled, not read"):
        evaluated(case, f"{cell('SalUn')} <= {cell('SalUn', function='published')}")
    with pytest.raises(ConfigError, match="no published number for E1 / random10 / SalUn / steps"):
        evaluated(case, f"{cell('SalUn', 'steps', function='published')} > 1")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ({"full": "hard", "mini": "reported"}, "hard"),
        ({"mini": "hard"}, ""),
        ({"default": "reported", "mini": "hard"}, "reported"),
        ({}, ""),
    ],
)
def test_level_depends_on_the_scale(case, level, expected):
    found = evaluated(case, f"{cell('SalUn')} < {cell('RL')}", level=level)
    assert found.level == expected
    assert found.status == ("holds" if expected else "not evaluated")


def test_claims_of_other_scales_need_not_match_this_spec(case):
    assert evaluated(case, 'cell("E9", "x", "y", "z") > 1', level={"mini": "hard"}).status == "not evaluated"


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (
            f"{cell('SalUm')} < 1",
            r"claims\.yaml: claim C1: E1 has no row 'SalUm' \(did you mean 'SalUn'\?\)",
        ),
        (
            f"{cell('SalUn', 'Avg Gap')} < 1",
            r"claim C1: E1 has no metric 'Avg Gap' \(did you mean 'Avg. Gap'\?\)",
        ),
        (f"{cell('SalUn', 'gap_UAA')} < 1", "did you mean 'gap_UA'"),
        (
            'cell("E2", "random10", "SalUn", "UA") < 1',
            r"unknown experiment 'E2' \(did you mean 'E1'\?\)",
        ),
        (f"{cell('SalUn')}.real < 1", "claim C1: .*not allowed"),
    ],
)
def test_mistakes_stop_the_plan_in_one_line(case, expr, message):
    case.claims({"expr": expr})
    with pytest.raises(ConfigError, match=message) as error:
        claims.check_claims(case.claims_yaml, case.spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{id: C1}", "must be a list"),
        ("- [", "not valid YAML"),
        ("- {id: C1, text: t, where: w}", "claim C1: expr: Field required"),
        (
            "- {id: C1, text: t, where: w, expr: 1 < 2, levle: {}}",
            r"claim C1: levle: unknown key \(did you mean 'level'\?\)",
        ),
        (
            "- {id: C1, text: t, where: w, expr: 1 < 2, level: {mini: soft}}",
            "claim C1: level.mini: ",
        ),
        (
            "- &c {id: C1, text: t, where: w, expr: 1 < 2}\n- *c",
            "C1 appears twice",
        ),
        ("- just a text", "claim number 1: "),
    ],
)
def test_bad_files_name_file_and_id(case, text, message):
    case.claims_yaml.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        claims.read_claims(case.claims_yaml)
    assert str(error.value).startswith(str(case.claims_yaml))


def test_division_by_zero_is_not_measured(case):
    found = evaluated(case, f"{cell('SalUn')} / {cell('Retrain')} > 1")
    assert (found.status, "division by zero" in found.reason) == ("not measured", True)


def test_run_writes_what_read_results_reads(case):
    case.claims({"expr": f"{cell('SalUn')} < {cell('RL')}", "level": {"default": "hard"}})
    case.run()
    content = json.loads((case.folder / "claims.json").read_text())
    assert content["counts"] == {
        "hard_held": 1, "hard_failed": 0, "reported_held": 0, "reported_failed": 0,
        "not_measured": 0,
    }  # fmt: skip
    expected = claims.evaluate(claims.read_claims(case.claims_yaml), tables.build(case.spec))
    assert claims.read_results(case.folder / "claims.json") == expected


# ---- the verdict


def judged(case, expr, level):
    case.claims({"expr": expr, "level": {"default": level}})
    built = tables.build(case.spec)
    return judge(built, claims.evaluate(claims.read_claims(case.claims_yaml), built))


def test_green_when_hard_claims_hold_and_every_number_is_there(case):
    found = judged(case, f"{cell('SalUn')} < {cell('RL')}", "hard")
    assert (found.is_green, found.line) == (
        True,
        "1 of 1 hard claims hold, 72 of 72 numbers measured",
    )


def test_red_when_a_hard_claim_fails_green_when_a_reported_one_does(case):
    expr = f"{cell('SalUn')} > {cell('RL')}"
    assert judged(case, expr, "hard").reasons == ["hard claim C1 fails"]
    assert judged(case, expr, "reported").is_green


def test_red_when_a_hard_claim_has_no_numbers(case):
    case.spec["cells"] = [c for c in case.spec["cells"] if c["row"] != "RL"]
    found = judged(case, f"{cell('SalUn')} < {cell('RL')}", "hard")
    assert found.reasons == ["hard claim C1 is not measured"]


def test_red_when_a_planned_cell_is_missing_one_line_a_row(case):
    case.fail("random50", "GA", "killed")
    found = judged(case, f"{cell('SalUn')} < {cell('RL')}", "hard")
    assert found.reasons == ["E1 / random50 / GA: failed: killed (log: logs/row.log)"]
    assert "66 of 72 numbers" in found.line


def test_exit_code(case, capsys):
    case.run()
    assert verdict(case.spec) == 0
    case.record("random10", "FT").unlink()
    case.run()
    assert verdict(case.spec) == 1
    assert "E1 / random10 / FT: missing" in capsys.readouterr().out


def test_planning_and_claims_import_neither_pandas_nor_torch():
    modules = ("claims", "verdict", "tables", "diff", "published")
    code = f"import sys, {', '.join(f'shared.results.{name}' for name in modules)}\n"
    code += "heavy = ('pandas', 'torch', 'matplotlib', 'jinja2', 'numpy')\n"
    code += "print([name for name in heavy if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
