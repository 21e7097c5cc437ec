"""Stages and rows end to end on real digits, small: records, sharing, determinism, errors."""

import json

import pytest
import torch

from shared.classification.protocol import stages
from shared.classification.run import run_row
from shared.classification.stages import run_stage
from shared.classification.task import Task
from shared.data import pull as pulling
from shared.errors import ConfigError
from shared.results.records import write_records

TASK = {
    "data": {
        "name": "digits",
        "validation": {"fraction": 0.25, "source": "test"},
        "loader": {"noise": 0.25, "num_train": 300},
    },
    "model": {"name": "tiny_cnn"},
    "train": {"epochs": 3, "batch": 64, "lr": 0.05, "schedule": "cosine"},
    "forget": {"rule": "random", "fraction": 0.1},
    "evaluate": {"membership": ["confidence", "correctness"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data root and stages of TASK, seed 1, made once."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPLICATE_DATA", str(root / "data"))
        pulling.pull("digits")
        for kind, recipe in stages(Task(**TASK), 1).items():
            make_stage(recipe, root / kind)
        yield root


def make_stage(recipe, out):
    out.mkdir(exist_ok=True)
    record = run_stage(json.loads(json.dumps({"recipe": recipe})), out, out / "work", 1)
    write_records(out / "record.json", [record])
    return record


def row(folder, method, options, seed=1, task=TASK, **stage_names):
    job = json.loads(json.dumps({"task": Task(**task).model_dump(), "method": method, "options": options}))
    names = stage_names or {"original": "original"}
    paths = {kind: folder / name for kind, name in names.items()}
    return run_row(job, seed, paths, folder / "work" / f"{method}-{seed}", 1)


def values(metrics):
    return {metric.name: metric.value for metric in metrics}


def test_retrain_row_is_the_stage_and_costs_what_it_cost(folder):
    metrics, cost, extras = row(folder, "shared.classification.finetune:retrain", {}, retrain="retrain")
    found = values(metrics)
    assert {"UA", "FA", "RA", "TA", "MIA", "MIA_correctness", "sparsity", "RTE", "steps"} == set(found)
    # 270 retained images are 5 batches of 64
    assert cost.steps == found["steps"] == 3 * 5
    assert found["RTE"] == cost.seconds / 60 > 0
    assert sum(extras["forget_predictions"]) == 30
    assert all(0 <= found[name] <= 100 for name in ("UA", "RA", "TA", "MIA"))


def test_rows_are_deterministic_and_counted(folder):
    method, options = (
        "papers.salun.method:salun",
        {"lr": 0.05, "keep": 0.1, "batch": 64, "epochs": 2},
    )
    first, cost, _ = row(folder, method, options)
    # one pass over 30 forget images for the mask, then 1 + 5 batches an epoch
    assert cost.steps == 1 + 2 * 6
    assert cost.device == "cpu"
    assert cost.peak_memory_mb > 0
    second = values(row(folder, method, options)[0])
    for name, value in values(first).items():
        if name != "RTE":
            assert second[name] == value
    changed = values(row(folder, method, {**options, "lr": 0.01})[0])
    assert changed != second


def test_original_scores_what_the_stage_recorded(folder):
    """The stage's own test accuracy and the row's TA come from the same weights and images."""
    from shared.results.records import read_records

    found = values(row(folder, "shared.classification.finetune:original", {})[0])
    assert found["TA"] == read_records(folder / "original" / "record.json")[0].metric("test_accuracy")
    assert found["steps"] == 0


def test_class_wise_rows_measure_the_forgotten_class_apart(folder):
    task = {**TASK, "forget": {"rule": "class", "class_index": 4}}
    options = {"lr": 0.003, "epsilon": 0.3, "clip": "data", "grid": False, "batch": 64}
    metrics, _, extras = row(folder, "papers.boundary.method:shrink", options, task=task)
    assert "TA_forget" in values(metrics)
    assert sum(extras["neighbour_histogram"]) == sum(extras["forget_predictions"])
    assert 0 <= extras["crossing_rate"] <= 1


def test_validation_split_is_another_set(folder):
    task = {**TASK, "evaluate": {"split": "validation"}}
    tested = values(row(folder, "shared.classification.finetune:original", {})[0])
    tuned = values(row(folder, "shared.classification.finetune:original", {}, task=task)[0])
    assert tuned["UA"] == tested["UA"]
    assert tuned["TA"] != tested["TA"]


def test_best_epoch_is_kept(folder, tmp_path):
    """With a learning rate that ruins the last epochs, selection on the validation set keeps the
    best."""
    change = {
        "epochs": 4,
        "batch": 64,
        "lr": 0.05,
        "schedule": "multistep",
        "milestones": [2],
        "decay": 60.0,
    }
    kept = Task(**{**TASK, "train": {**change, "select": "best_validation"}})
    record = make_stage(stages(kept, 1)["original"], tmp_path / "best")
    scores = [epoch["validation_accuracy"] for epoch in record.extras["history"]]
    assert len(scores) == 4
    last = make_stage(stages(Task(**{**TASK, "train": change}), 1)["original"], tmp_path / "last")
    assert max(scores) > scores[-1]
    assert record.metric("test_accuracy") > last.metric("test_accuracy")


def test_stage_resumes_and_ends_in_the_same_weights(folder, tmp_path):
    from shared.models.build import build, load_model

    record = make_stage(stages(Task(**TASK), 1)["original"], tmp_path / "again")
    first, again = build("tiny_cnn", 10, 1), build("tiny_cnn", 10, 1)
    load_model(first, folder / "original" / "model.safetensors")
    load_model(again, tmp_path / "again" / "model.safetensors")
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert record.cost.steps == 3 * 5


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        (
            {"rule": "class", "class_index": 10},
            "forget class 10 does not exist, the last class is 9",
        ),
        ({"rule": "random", "fraction": 0.001}, "of 300 images is 0"),
    ],
)
def test_impossible_tasks_stop_with_one_line(folder, forget, message):
    with pytest.raises(ConfigError, match=message):
        row(folder, "shared.classification.finetune:original", {}, task={**TASK, "forget": forget})
