"""The track's protocol: parts as stages, sharing between rows, metrics, mistakes in a task."""

import re

import pydantic
import pytest

from shared.detection import protocol
from shared.detection.task import Task
from shared.errors import ConfigError
from shared.options import explain, parse_options

DATA = {"kind": "generated", "manifest": "shape_scenes", "part": "train"}
EVALUATE = {"data": {**DATA, "part": "validation"}, "classes": ["circle", "square", "triangle"]}
TASK = {"train": {"train": DATA}, "evaluate": EVALUATE}
METHOD = protocol.METHODS["mask_rcnn"]
MODEL = {"num_classes": 3, "epochs": 1, "batch": 4, "lr": 1e-3, "schedule": {"kind": "multistep", "milestones": [1]}}


def part(changes=None, task=None, seed=1):
    return protocol.parts(METHOD, {"model": {**MODEL, **(changes or {})}}, Task(**(task or TASK)), seed)


def test_a_row_trains_one_part_on_the_tasks_set():
    (recipe,) = part().values()
    assert (recipe["track"], recipe["stage"], recipe["seed"]) == ("detection", "part", 1)
    assert recipe["manifests"] == ["shape_scenes"]
    assert recipe["data"]["train"]["part"] == "train"
    assert recipe["stages"] == {}
    # a stage reads its options from the training function
    assert parse_options(recipe["train"], recipe["options"]).model_dump(mode="json") == recipe["options"]


def test_settings_that_differ_in_the_evaluation_share_their_parts():
    other = {**TASK, "evaluate": {**EVALUATE, "draws": 3, "size": {"kind": "short", "short": 100, "longest": 200}}}
    assert part() == part(task=other)


def test_weights_and_seeds_make_another_part():
    assert part({"weights": "torchvision_resnet18"})["model"]["manifests"] == ["shape_scenes", "torchvision_resnet18"]
    assert part(seed=2) != part()


def test_a_row_reads_the_data_of_its_evaluation_alone():
    assert protocol.manifests(Task(train={}, evaluate=EVALUATE)) == ["shape_scenes"]
    assert protocol.stages(Task(**TASK), 1) == {}
    assert protocol.stages_needed(METHOD, Task(**TASK)) == []


def test_every_number_of_coco_is_declared_once():
    names = [spec.name for spec in (*protocol.METRICS, *protocol.EXTRA_METRICS)]
    assert len(names) == len(set(names)) == 24 + 3
    assert [spec.name for spec in protocol.METRICS] == ["AP_box", "AP_mask"]


def test_a_training_set_that_the_task_has_not_is_one_line():
    with pytest.raises(ConfigError, match=r"model: training set 'trian' .*did you mean 'train'"):
        part({"data": "trian"})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"clases": ["a"]}, r"evaluate\.clases: unknown key .did you mean 'classes'"),
        ({"classes": []}, r"evaluate\.classes: List should have at least 1 item"),
        ({"draws": 0}, r"evaluate\.draws: Input should be greater than or equal to 1"),
        ({"size": {"kind": "large"}}, r"evaluate\.size: Input tag 'large'"),
    ],
)
def test_mistakes_in_a_task_name_the_key(change, problem):
    with pytest.raises(pydantic.ValidationError) as caught:
        Task(**{**TASK, "evaluate": {**EVALUATE, **change}})
    assert re.search(problem, explain(caught.value, Task))
