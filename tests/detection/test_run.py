"""A row job: parts from their folders, metrics with units, what training cost."""

import pytest
import torch

from shared.detection import baseline, run
from shared.detection.options import DetectorOptions
from shared.detection.protocol import METHODS, parts
from shared.detection.run import run_row
from shared.detection.scenes import make_scenes
from shared.detection.task import Task
from shared.results.records import Cost, Record, write_records
from shared.segmentation import context as context_module
from shared.segmentation.stages import WEIGHTS, _save
from shared.training.seeds import stream_seed

TASK = {
    "train": {"train": {"kind": "generated", "manifest": "shape_scenes", "part": "train"}},
    "evaluate": {
        "data": {"kind": "generated", "manifest": "shape_scenes", "part": "judge"},
        "classes": ["circle", "square", "triangle"],
        "pixels": {"divisor": 32},
    },
}


@pytest.fixture
def job(small, tmp_path, monkeypatch):
    """A row whose part was `trained` in 30 s and 60 steps, and its folder."""
    rpn = {**small.rpn.model_dump(mode="json"), "anchors": [8.0, 16.0, 32.0, 64.0]}
    heads = DetectorOptions.model_validate({**small.model_dump(), "rpn": rpn}).model_dump(mode="json")
    schedule = {"kind": "multistep", "milestones": [1]}
    model = {"num_classes": 3, "detector": heads, "epochs": 1, "batch": 4, "lr": 1e-3, "schedule": schedule}
    options = {"model": model}
    (recipe,) = parts(METHODS["mask_rcnn"], options, Task(**TASK), 1).values()
    folder = tmp_path / "part"
    folder.mkdir()
    built = baseline.build(None, run.parse_options(recipe["train"], recipe["options"]), stream_seed(5, "trained"))
    _save(built.state_dict(), folder / WEIGHTS)
    record = Record("", "", "stage", "", recipe["train"], 1, [], Cost(30.0, 60, 1.0, "cpu"), {})
    write_records(folder / "record.json", [record])
    monkeypatch.setattr(context_module, "open_source", lambda spec: make_scenes(4, 0))
    job = {
        "task": TASK,
        "method": METHODS["mask_rcnn"],
        "options": options,
        "stages": {"1": {"model": {"recipe": recipe}}},
    }
    return job, folder, built


def test_a_row_reports_cocos_numbers_and_what_its_part_cost(job, tmp_path):
    content, folder, built = job
    metrics, cost, extras = run_row(content, 1, {"model": folder}, tmp_path)
    found = {metric.name: metric for metric in metrics}
    assert 0 <= found["AP_box"].value <= 100
    assert (found["AP_box"].unit, found["AP_box"].better) == ("%", "higher")
    assert found["train_minutes"].value == 0.5
    assert found["step_ms"].value == 500
    assert found["parameters"].value == pytest.approx(sum(p.numel() for p in built.parameters()) / 1e6)
    assert (cost.steps, cost.device) == (0, str(torch.device("cpu")))
    assert extras


def test_training_counts_what_a_part_starts_from(job, tmp_path):
    content, folder, _ = job
    base = tmp_path / "base" / "record.json"
    write_records(base, [Record("", "", "stage", "", "mae", 1, [], Cost(60.0, 40, 1.0, "cpu"), {})])
    content["stages"]["1"]["model"]["stages"] = {"base": {"output": str(base)}}
    found = {metric.name: metric.value for metric in run_row(content, 1, {"model": folder}, tmp_path)[0]}
    assert found["train_minutes"] == 1.5
    assert found["step_ms"] == 500
