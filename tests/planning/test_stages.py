"""Stages that stand on stages: edges, sharing, a bare machine, a kill below, and what a row needs further."""

import json
import sys
import types
from pathlib import Path

import pytest

from shared import run
from shared.config import TRACKS
from shared.errors import ConfigError
from shared.metrics.declared import MetricSpec
from shared.options import Strict
from shared.planning.stages import stage_inputs
from shared.results.records import Cost, Metric, Record, read_records

TOY = {
    "title": "A toy",
    "track": "toy",
    "seeds": {"pilot": 0, "test": [1]},
    "tasks": {"main": {}},
    "experiments": {
        "E1": {
            "title": "Table 1",
            "metrics": ["depth"],
            "settings": {"only": {"label": "all", "task": "main"}},
            "rows": {"Left": {"method": "left"}, "Top": {"method": "top"}},
        }
    },
}


class ToyTask(Strict):
    """data: manifests; colour: part of the lowest stage."""

    data: list[str] = []
    colour: str = "red"


def toy_stages(task, seed):
    common = {"track": "toy", "seed": seed}
    base = {**common, "stage": "base", "colour": task.colour, "manifests": []}
    left = {**common, "stage": "left", "stages": {"base": base}}
    right = {**common, "stage": "right", "stages": {"ground": base}}
    return {"base": base, "left": left, "right": right, "top": {**common, "stage": "top", "stages": {"left": left}}}


@pytest.fixture
def toy(paper, monkeypatch):
    """A track whose stages write down what they were made from; `calls` lists them, `killed` names one to kill once."""
    track = types.ModuleType("toy_track")
    calls, killed = [], set()

    def run_stage(job, out, work, threads):
        name = job["recipe"]["stage"]
        calls.append(name)
        below = [(Path(stage["output"]).parent / "made.txt").read_text() for stage in job.get("stages", {}).values()]
        if name in killed:
            killed.remove(name)
            work.mkdir(parents=True)
            (work / "half").write_text("half")
            raise KeyboardInterrupt
        resumed = " resumed" if (work / "half").is_file() else ""
        (out / "made.txt").write_text(f"{name}({', '.join(below)}){resumed}")
        return Record("", "", "stage", "", name, 1, [], Cost(0.0, 0, 0.0, "cpu"))

    def run_row(job, seed, stages, work, threads):
        made = {name: (folder / "made.txt").read_text() for name, folder in stages.items()}
        return [Metric("depth", len(made), "")], Cost(0.0, 0, 0.0, "cpu"), made

    own = {"left": "shared.classification.finetune:retrain", "top": "shared.classification.finetune:original"}
    vars(track).update(
        Task=ToyTask,
        stages=toy_stages,
        manifests=lambda task: task.data,
        METHODS=own,
        stages_needed=lambda method, task: [name for name, path in own.items() if path == method],
        METRICS=[MetricSpec(name="depth", unit="", better="")],
        RUN_STAGE="toy_track:run_stage",
        RUN_ROW="toy_track:run_row",
        run_stage=run_stage,
        run_row=run_row,
        EXTRA_METRICS=[],
        DERIVED=[],
        REFERENCE=None,
        FIGURES="x:y",
        calls=calls,
        killed=killed,
    )
    monkeypatch.setitem(sys.modules, "toy_track", track)
    monkeypatch.setitem(TRACKS, "toy", "toy_track")

    def build(change=None, slug="demo"):
        def replace(values):
            values.clear()
            values.update(json.loads(json.dumps(TOY)))
            if change:
                change(values)

        return paper(replace, slug)

    build.track = track
    return build


def rows(values):
    return values["experiments"]["E1"]["rows"]


def by_name(built):
    return {job.content["stage"]: job for job in built.stages.values()}


def test_parents_enter_the_plan_and_are_inputs_of_their_children(toy):
    stages = by_name(toy())
    assert set(stages) == {"base", "left", "top"}  # nobody needs `right`
    assert stages["top"].inputs == [str(stages["left"].output)]
    assert stages["left"].inputs == [str(stages["base"].output)]
    assert stages["base"].inputs == []
    assert stages["left"].content["stages"] == {"base": stages["base"].content}
    assert stages["top"].content["stages"]["left"]["stages"]["base"]["output"] == str(stages["base"].output)


def test_a_stage_without_parents_has_no_such_key(toy):
    assert "stages" not in by_name(toy())["base"].content


def test_two_children_share_their_parent_by_whatever_name(toy):
    stages = by_name(toy(lambda v: rows(v)["Left"].update(needs=["right", "base"])))
    assert set(stages) == {"base", "left", "right", "top"}
    assert stages["right"].content["stages"]["ground"] == stages["left"].content["stages"]["base"]
    assert len({job.path for job in stages.values()}) == 4


def test_a_digest_does_not_depend_on_how_the_stage_is_reached(toy):
    def alone(values):
        rows(values).pop("Top")

    assert by_name(toy(alone))["left"].content == by_name(toy())["left"].content
    direct = by_name(toy(lambda v: rows(v)["Left"].update(needs=["base"]), "other"))
    assert direct["base"].content == by_name(toy())["base"].content
    # `base` names its data itself: a task that needs more data stands on the same base, but on another `left`
    more = by_name(toy(lambda v: v["tasks"]["main"].update(data=["digits"])))
    assert more["base"].content == direct["base"].content
    assert more["left"].content["digest"] != direct["left"].content["digest"]


def test_a_changed_parent_changes_every_stage_above_it(toy):
    before, after = by_name(toy()), by_name(toy(lambda v: v["tasks"]["main"].update(colour="blue")))
    assert all(before[name].content["digest"] != after[name].content["digest"] for name in before)


def test_the_engine_reads_the_edges_from_the_job_file(toy):
    built = toy()
    built.write()
    stages = by_name(built)
    wildcards = types.SimpleNamespace(digest=stages["top"].content["digest"])
    assert stage_inputs(wildcards) == {"job": str(stages["top"].path), "needs": [str(stages["left"].output)]}


def run_row(job):
    Path("job.json").write_text(json.dumps(job.content))
    return run.main(["row", "job.json", "--gpus", "0"])


def test_a_row_on_a_bare_machine_makes_everything_below_once(toy, monkeypatch):
    built = toy(lambda v: rows(v)["Top"].update(needs=["left"]))
    job = next(cell.jobs[0] for cell in built.cells if cell.row == "Top")
    assert run_row(job) == 0
    assert toy.track.calls == ["base", "left", "top"]
    assert read_records(job.output)[0].extras == {"left": "left(base())", "top": "top(left(base()))"}


def test_a_stage_on_a_bare_machine_makes_its_parents(toy):
    Path("stage.json").write_text(json.dumps(by_name(toy())["top"].content))
    assert run.main(["stage", "stage.json", "--gpus", "0"]) == 0
    assert toy.track.calls == ["base", "left", "top"]
    assert run.main(["stage", "stage.json", "--gpus", "0"]) == 0
    assert toy.track.calls == ["base", "left", "top"]


def test_a_kill_in_the_parent_leaves_no_child_and_goes_on_from_there(toy):
    stages = by_name(toy())
    Path("stage.json").write_text(json.dumps(stages["top"].content))
    toy.track.killed.add("left")
    with pytest.raises(KeyboardInterrupt):
        run.main(["stage", "stage.json", "--gpus", "0"])
    assert stages["base"].output.is_file()
    assert not stages["left"].output.exists()
    assert not stages["top"].output.exists()
    assert run.main(["stage", "stage.json", "--gpus", "0"]) == 0
    assert toy.track.calls == ["base", "left", "left", "top"]
    assert (stages["top"].output.parent / "made.txt").read_text() == "top(left(base()) resumed)"


def test_needs_are_inherited_by_like_and_make_another_job(toy):
    def change(values):
        rows(values)["Left"]["needs"] = ["right"]
        rows(values)["Same"] = {"like": "E1/Left", "needs": ["base"]}
        rows(values)["Plain"] = {"method": "left"}

    built = toy(change)
    stages = {cell.row: set(cell.jobs[0].content["stages"]["1"]) for cell in built.cells}
    assert stages == {"Left": {"left", "right"}, "Same": {"base", "left", "right"}, "Plain": {"left"}, "Top": {"top"}}
    records = {cell.row: str(cell.jobs[0].output) for cell in built.cells}
    assert len(set(records.values())) == 4


def test_a_stage_that_does_not_exist_is_one_line(toy):
    with pytest.raises(ConfigError) as error:
        toy(lambda v: rows(v)["Left"].update(needs=["bse"]))
    expected = "E1: row 'Left': needs 'bse', which is no stage of its task (did you mean 'base'?)"
    assert str(error.value) == f"papers/demo/config/full.yaml: {expected}"


def test_the_retrained_model_as_a_further_stage(paper):
    built = paper(lambda v: rows(v)["FT"].update(needs=["retrain"]))
    job = next(cell.jobs[0] for cell in built.cells if (cell.experiment, cell.row) == ("E1", "FT"))
    assert set(job.content["stages"]["1"]) == {"original", "retrain"}
    assert job.content["needs"] == ["retrain"]
    assert sum(path.startswith("results/stages/") for path in job.inputs) == 4  # two seeds a job


def with_parts(toy):
    """A toy track whose rows have a part each, made by one function and keyed by its options."""

    def parts(method, options, task, seed):
        if task.colour == "none":
            raise ConfigError("body: training set 'train' is not one of the task's")
        depth = len(method)  # the two methods' paths differ in length
        own = {"track": "toy", "stage": "part", "depth": depth, "manifests": [], "seed": seed}
        own["sources"] = ["papers.salun.method:salun"]
        return {"body": {**own, "stages": toy_stages(task, seed)}}

    toy.track.parts = parts
    return toy


def test_the_parts_of_a_row_are_stages_and_wait_for_their_source(toy):
    built = with_parts(toy)()
    found = [job for job in built.stages.values() if job.content["stage"] == "part"]
    assert len(found) == 2  # one for each row's options
    assert all(any(path.endswith("papers/salun/method.py") for path in job.inputs) for job in found)
    for job in built.rows.values():
        own = job.content["stages"]["1"]
        assert set(own) == {"body", "left" if job.content["row"] == "Left" else "top"}
        assert str(own["body"]["output"]) in job.inputs


def test_a_part_that_cannot_be_planned_names_the_row(toy):
    with pytest.raises(ConfigError, match=r"demo/config/full\.yaml: E1: row 'Left': body: training set 'train'"):
        with_parts(toy)(lambda v: v["tasks"]["main"].update(colour="none"))
