"""The plan: what is a job, what is shared, what changes when something is edited."""

import json
import os
import subprocess
import sys

import pytest

from shared.errors import ConfigError
from shared.paths import ROOT
from shared.planning.tuning import grid_points


def contents(built):
    return {path: job.content for path, job in built.jobs().items()}


def test_seeds_are_grouped_and_every_cell_has_its_jobs(paper):
    built = paper()
    cell = next(c for c in built.cells if (c.experiment, c.setting, c.row) == ("E1", "ten", "FT"))
    assert [job.content["seeds"] for job in cell.jobs] == [[1, 2], [3]]
    assert [job.path.name for job in cell.jobs] == ["s1-2.json", "s3.json"]
    assert len(built.cells) == 2 * 3 + 3


def test_equal_cells_of_two_tables_are_computed_once(paper):
    built = paper()
    by_cell = {(c.experiment, c.setting, c.row): c.jobs for c in built.cells}
    assert by_cell["E4", "ten", "FT"] == by_cell["E1", "ten", "FT"]
    assert not any("/E4/ten/FT/" in record for record in built.records)


def test_like_takes_options_and_like_into_wraps_them(paper):
    built = paper()
    assert built.resolver.row("E4", "ten", "keep-0.1")[1]["keep"] == 0.1
    assert built.resolver.row("E4", "ten", "keep-0.1")[1]["lr"] == 0.02
    method, options = built.resolver.row("E4", "ten", "FT+mask")
    assert method == "papers.salun.method:masked"
    assert options["base_options"]["lr"] == 0.02
    assert built.resolver.row("E1", "fifty", "SalUn")[1]["keep"] == 0.3


def test_a_row_waits_for_its_method_its_stages_and_its_data(paper):
    built = paper()
    job = next(c for c in built.cells if c.row == "SalUn").jobs[0]
    assert job.inputs[0] == str(ROOT / "papers" / "salun" / "method.py")
    assert sum(path.startswith("results/stages/") for path in job.inputs) == 2  # one original a seed
    assert any(path.endswith("digits/pulled.json") for path in job.inputs)


def test_retrain_waits_for_the_retrained_model_only(paper):
    retrain = next(c for c in paper().cells if c.row == "Retrain").jobs[0]
    assert {kind for kinds in retrain.content["stages"].values() for kind in kinds} == {"retrain"}


def test_an_edited_hyper_parameter_changes_that_row_and_the_spec_only(paper):
    before = paper()
    after = paper(lambda v: v["experiments"]["E1"]["rows"]["SalUn"]["options"].update(lr=0.03))
    changed = {path for path, content in contents(after).items() if contents(before).get(path) != content}
    assert {path.split("/records/")[1].split("/")[2] for path in changed} == {"SalUn", "keep-0.1"}  # and its `like`
    assert before.spec != after.spec


def test_a_new_title_or_more_memory_changes_no_job(paper):
    before = paper()
    after = paper(lambda v: v.update(title="Another", resources={"memory_mb": 9000, "threads": 2}))
    assert contents(before) == contents(after)


def test_unchanged_job_files_keep_their_time_stamps(paper):
    built = paper()
    built.write()
    for job in built.jobs().values():
        os.utime(job.path, ns=(1, 1))
    paper(lambda v: v["experiments"]["E1"]["rows"]["FT"]["options"].update(epochs=3)).write()
    touched = {path for path, job in built.jobs().items() if job.path.stat().st_mtime_ns != 1}
    assert touched
    assert all("/FT" in path for path in touched)


def test_two_papers_with_one_recipe_share_its_stages(paper):
    first, second = paper(), paper(slug="other")
    assert set(first.stages) == set(second.stages)
    assert [job.content for job in first.stages.values()] == [job.content for job in second.stages.values()]


def test_stages_are_keyed_by_recipe_and_data_and_not_by_evaluation(paper):
    keys = set(paper().stages)
    assert set(paper(lambda v: v["tasks"]["digits"].update(evaluate={"batch": 10})).stages) == keys
    assert not set(paper(lambda v: v["tasks"]["digits"]["train"].update(epochs=3)).stages) & keys


def test_the_search_runs_on_the_pilot_seed_with_the_tuning_change(paper):
    built = paper()
    searches = {(s.experiment, s.setting, s.row): s.points for s in built.searches}
    assert set(searches) == {("E1", s, r) for s in ("ten", "fifty") for r in ("Retrain", "FT")}
    assert [point for point, _ in searches["E1", "ten", "FT"]] == [{"lr": 0.01}, {"lr": 0.02}]
    for points in searches.values():
        for _, job in points:
            assert job.content["seeds"] == [0]
            assert job.content["task"]["evaluate"]["split"] == "validation"


def test_grid_points_are_all_combinations_in_order():
    assert grid_points({}) == [{}]
    assert grid_points({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_a_disabled_setting_is_planned_nowhere_and_explained_in_the_spec(paper):
    built = paper(lambda v: v["experiments"]["E1"]["settings"]["fifty"].update(enabled=False, why_not="no time"))
    assert not any("/fifty/" in path for path in built.jobs())
    assert built.spec["experiments"]["E1"]["settings"]["fifty"]["why_not"] == "no time"


def rows(values):
    return values["experiments"]["E1"]["rows"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: rows(v)["FT"].update(method="finetun"),
            r"E1: row 'FT': method 'finetun' does not exist \(did you mean 'finetune'\?\)",
        ),
        (
            lambda v: rows(v)["FT"]["options"].update(epoch=3),
            r"E1: row 'FT': epoch: unknown key \(did you mean 'epochs'\?\)",
        ),
        (lambda v: rows(v)["SalUn"]["options"].update(keep=2), r"E1: row 'SalUn': keep: .*less than or equal to 1"),
        (lambda v: rows(v)["SalUn"]["options"].update(lr="fast"), r"E1: row 'SalUn': lr: .*got 'fast'"),
        (
            lambda v: rows(v)["SalUn"]["per_setting"].update(fity={}),
            r"per_setting 'fity' names no setting \(did you mean 'fifty'\?\)",
        ),
        (lambda v: rows(v)["FT"].update(grid={"lr": [-1.0]}), None),
        (
            lambda v: v["experiments"]["E1"]["metrics"].append("UAA"),
            r"metric 'UAA' does not exist \(did you mean 'UA'\?\)",
        ),
        (
            lambda v: v["experiments"]["E1"]["settings"]["ten"].update(task="digit"),
            r"task 'digit' does not exist \(did you mean 'digits'\?\)",
        ),
        (lambda v: v["experiments"]["E1"].update(seeds=[0]), "pilot seed 0 is for tuning only"),
        (
            lambda v: v["experiments"]["E4"]["rows"]["FT"].update(like="E1/TF"),
            r"like 'E1/TF' names no row \(did you mean 'E1/FT'\?\)",
        ),
        (lambda v: v["tasks"]["digits"]["data"].update(name="digts"), r"no data set 'digts'.*did you mean 'digits'"),
        (
            lambda v: v["tasks"]["digits"]["model"].update(name="tiny_cn"),
            r"'tiny_cn' is not a known model \(did you mean 'tiny_cnn'\?\)",
        ),
        (lambda v: v["tasks"]["digits"]["train"].update(schedule="cosin"), "train.schedule"),
        (lambda v: v["tasks"]["digits"]["forget"].update(fraction=1.0), "forget.fraction"),
        (lambda v: v["tasks"]["digits"]["forget"].update(fraction=0), "forget.fraction"),
    ],
)
def test_a_mistake_is_one_line_with_file_experiment_and_key(paper, change, message):
    with pytest.raises(ConfigError) as error:
        paper(change).write_tuning()
    assert str(error.value).startswith("papers/demo/config/full.yaml: ")
    assert "\n" not in str(error.value)
    if message:
        assert error.match(message)


def test_like_in_a_circle_is_refused(paper):
    def circle(values):
        rows(values)["FT"] = {"like": "E4/FT"}

    with pytest.raises(ConfigError, match="leads back to itself"):
        paper(circle)


def test_planning_a_paper_imports_neither_torch_nor_pandas(tmp_path):
    code = (
        "import sys; from shared.planning.plan import Plan; from shared.results.claims import check_claims; "
        "p = Plan('salun', 'full'); check_claims(p.spec['claims_yaml'], p.spec); p.searches; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'sklearn', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_job_files_are_plain_json_without_paths_of_this_machine(paper, tmp_path):
    built = paper()
    text = json.dumps([job.content for job in built.jobs().values()] + [built.spec])
    assert str(tmp_path) not in text
    assert str(ROOT) not in text


def test_a_row_that_is_switched_off_has_no_job_and_says_why(paper):
    def off(values):
        values["experiments"]["E1"]["rows"]["FT"] |= {"enabled": False, "why_not": "too slow"}

    plan = paper(off)
    assert not [cell for cell in plan.cells if (cell.experiment, cell.row) == ("E1", "FT")]
    assert [cell for cell in plan.cells if (cell.experiment, cell.row) == ("E4", "FT")]  # like it, and run
    assert plan.spec["experiments"]["E1"]["rows"]["FT"]["why_not"] == "too slow"
    assert not [search for search in plan.searches if (search.experiment, search.row) == ("E1", "FT")]
