"""Stages and rows of the text track end to end on the generated authors, small."""

import json

import pytest
import torch

from shared.data import pull as pulling
from shared.errors import ConfigError
from shared.results.records import write_records
from shared.text.losses.names import LOSSES
from shared.text.models import load_model
from shared.text.protocol import stages, stages_needed
from shared.text.run import run_row
from shared.text.stages import run_stage
from shared.text.task import Task

TASK = {
    "data": {
        "name": "tiny_authors",
        "rows_per_author": 8,
        "world": "world",
        "refusals": "tiny_authors",
    },
    "model": {
        "tiny": {"width": 32, "layers": 2, "heads": 2, "context": 24},
        "template": "plain",
        "world_recipe": {"epochs": 2, "batch": 64, "lr": 3e-3, "schedule": "cosine"},
    },
    "profile": "open_unlearning",
    "max_length": 24,
    "train": {"epochs": 2, "batch": 64, "lr": 3e-3, "schedule": "cosine", "bucket": 4},
    "evaluate": {
        "sets": {
            "retain": "retain_perturbed",
            "forget": "forget10_perturbed",
            "real_authors": "real_authors_perturbed",
            "world_facts": "world_facts_perturbed",
        },
        "max_length": 24,
        "max_total": 24,
        "epochs": [1],
    },
}
UNLEARN = {"lr": 1e-3, "epochs": 2, "batch": 8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The stages of TASK, seed 1, made once: name -> folder."""
    root = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPLICATE_DATA", str(root / "data"))
        pulling.pull("tiny_authors")
        made = {}
        yield {name: make(recipe, root, made) for name, recipe in stages(Task(**TASK), 1).items()} | {"root": root}


def make(recipe, root, made):
    """A stage with those that it stands on, each once; returns its folder."""
    key = json.dumps(recipe, sort_keys=True)
    if key not in made:
        parents = {
            name: {"output": str(make(parent, root, made) / "record.json")}
            for name, parent in recipe.get("stages", {}).items()
        }
        folder = root / f"stage-{len(made)}"
        folder.mkdir()
        record = run_stage({"recipe": json.loads(key), "stages": parents}, folder, folder / "work", 1)
        write_records(folder / "record.json", [record])
        made[key] = folder
    return made[key]


def row(folders, method, options=None, task=TASK, seed=1, workdir="work"):
    typed = Task(**task)
    job = {
        "task": typed.model_dump(mode="json"),
        "method": method,
        "options": options or {},
        "experiment": "E",
        "setting": "s",
        "row": method.rpartition(":")[2],
        "output": str(folders["root"] / "results" / "records" / "E" / "s" / "r" / "s1.json"),
    }
    needed = {name: folders[name] for name in stages_needed(method, typed)}
    metrics, cost, extras = run_row(json.loads(json.dumps(job)), seed, needed, folders["root"] / workdir, 1)
    return {metric.name: metric.value for metric in metrics}, cost, extras


def test_the_retain_row_is_its_own_reference(folders):
    values, cost, extras = row(folders, "shared.text.references:retain")
    assert values["forget_quality"] == 1.0
    assert 0 < values["model_utility"] < 1
    assert cost.steps == 0
    assert len(extras["answers"]) == 6
    assert len(extras["log_truth_ratio"]) == 32


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_unlearns_and_leaves_its_logs(folders, name):
    options = dict(UNLEARN)
    if name == "rmu":
        options["module"] = "transformer.h.1"
    if name == "pdu":
        options["eps"] = 0.5
    before = load_model(folders["target"] / "model").state_dict()
    values, cost, extras = row(folders, LOSSES[name], options, workdir=f"work-{name}")
    assert cost.steps == 8
    assert [point["epoch"] for point in extras["trajectory"]] == [1, 2]
    assert 0 <= values["forget_quality"] <= values["best_forget_quality"] <= 1
    logs = folders["root"] / "results" / "logs" / "E" / "s" / name / "s1"
    assert sorted(path.name for path in logs.iterdir()) == ["epoch01", "epoch02"]
    assert (logs / "epoch02" / "TOFU_SUMMARY.json").is_file()
    after = load_model(folders["target"] / "model").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the target's stage was changed"


def test_gradient_ascent_that_diverges_is_a_result(folders):
    values, _, _ = row(folders, LOSSES["ga"], {**UNLEARN, "lr": 10.0, "warmup": 0.0}, workdir="work-diverges")
    assert values["model_utility"] == 0
    assert values["forget_quality"] < 0.05


def test_same_seed_same_numbers_and_a_finished_checkpoint_is_not_run_again(folders):
    first, _, _ = row(folders, LOSSES["npo"], UNLEARN, workdir="work-a")
    second, _, _ = row(folders, LOSSES["npo"], UNLEARN, workdir="work-b")
    again, _, extras = row(folders, LOSSES["npo"], UNLEARN, workdir="work-a")
    times = {"RTE"}
    assert {k: v for k, v in first.items() if k not in times} == {k: v for k, v in second.items() if k not in times}
    assert {k: v for k, v in first.items() if k not in times} == {k: v for k, v in again.items() if k not in times}
    assert len(extras["answers"]) == 6


def test_tasks_that_forget_other_rows_share_the_target_model():
    five = {**TASK, "data": {**TASK["data"], "forget": "forget05", "retain": "retain95"}}
    ten, five = (stages(Task(**task), 1) for task in (TASK, five))
    assert ten["target"] == five["target"]
    assert ten["retain"] != five["retain"]
    assert ten["second_retain"] != ten["retain"]


def test_a_base_model_with_a_seed_of_its_own_is_the_same_for_all_rows():
    shared = {**TASK, "model": {**TASK["model"], "seed": 4}}
    one, two = (stages(Task(**shared), seed) for seed in (1, 2))
    assert one["base"] == two["base"]
    assert one["target"] != two["target"]
    assert one["second_retain"]["stages"]["base"] == two["second_retain"]["stages"]["base"] != one["base"]
    plain = stages(Task(**TASK), 4)  # the seed is no key of a recipe: the same model, however it came by its seed
    assert plain["base"] == one["base"]
    assert plain["target"] == stages(Task(**shared), 4)["target"]


def test_a_refusing_loss_without_refusals_is_one_line(folders):
    task = {**TASK, "data": {**TASK["data"], "refusals": None}}
    with pytest.raises(ConfigError, match=r"data\.refusals: this loss answers with refusals"):
        row(folders, LOSSES["po"], UNLEARN, task=task, workdir="work-refusals")
