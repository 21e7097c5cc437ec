"""The track's protocol: parts as stages, sharing, mistakes in a task."""

import re

import pydantic
import pytest

from shared.errors import ConfigError
from shared.options import explain
from shared.segmentation import protocol
from shared.segmentation.task import Task

METHOD = "papers.hq_sam.method:hq_sam"
DATA = {"kind": "generated", "manifest": "thin_shapes", "part": "tuning", "labels": "fine"}
JUDGED = {"kind": "generated", "manifest": "thin_shapes", "part": "in_family", "labels": "fine"}
PRETRAIN = {"steps_per_epoch": 4, "epochs": 1, "batch": 4, "lr": 1e-3}
TASK = {
    "sam": {"size": "small_patch8", "pretrain": PRETRAIN, "data": {**DATA, "part": "all", "labels": "coarse"}},
    "train": {"train": DATA, "coarse": {**DATA, "labels": "coarse"}},
    "evaluate": {"kind": "prompted", "data": JUDGED},
}


def part(options=None, task=None, seed=1):
    return protocol.parts(METHOD, options or {}, Task(**(task or TASK)), seed)


def test_settings_that_differ_in_the_evaluation_share_their_parts():
    noisy = {**TASK, "evaluate": {**TASK["evaluate"], "prompt": {"kind": "box", "noise": 0.2}}}
    assert part() == part(task=noisy)
    assert part() == part({"hq_token_only": False})


def test_what_a_part_learns_from_and_stands_on_makes_it_another_one():
    (recipe,) = part().values()
    assert set(recipe["data"]) == {"train"}
    assert recipe["stages"]["sam"]["seed"] == recipe["seed"] == 1
    assert recipe["manifests"] == ["thin_shapes"]
    (coarse,) = part({"model": {"data": "coarse"}}).values()
    assert set(coarse["data"]) == {"coarse"}
    assert part(seed=2) != part()


def test_a_published_model_is_the_same_for_all_seeds_and_needs_no_data():
    published = {**TASK, "sam": {"size": "vit_b", "checkpoint": "sam_vit_b"}}
    one, two = (protocol.stages(Task(**published), seed)["sam"] for seed in (1, 2))
    assert one == two
    assert one["manifests"] == ["sam_vit_b"]


def test_a_row_reads_the_data_of_its_evaluation_alone():
    other = {**DATA, "manifest": "single_shapes", "part": "train"}
    del other["labels"]
    assert protocol.manifests(Task(**{**TASK, "train": {"train": other}})) == ["thin_shapes"]


def test_a_training_set_that_the_task_has_not_is_one_line():
    with pytest.raises(ConfigError, match=r"model: training set 'coarce' .*did you mean 'coarse'"):
        part({"model": {"data": "coarce"}})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sam": {"size": "vit_b"}}, r"sam: a SAM is either a `checkpoint` or trained here"),
        ({"sam": {"size": "vit_x", "checkpoint": "sam_vit_b"}}, r"sam: SAM size 'vit_x' is unknown .did you mean"),
        ({"train": {"train": {**DATA, "lables": "fine"}}}, r"lables: unknown key .did you mean 'labels'"),
        ({"evaluate": {"kind": "prompted", "data": JUDGED, "promt": {}}}, r"promt: unknown key .did you mean 'prompt'"),
    ],
)
def test_mistakes_in_a_task_name_the_key(change, problem):
    with pytest.raises(pydantic.ValidationError) as caught:
        Task(**{**TASK, **change})
    assert re.search(problem, explain(caught.value, Task))


def test_a_part_without_anything_of_sam_is_shared_by_tasks_with_another_one():
    method, segmenter = "papers.promptnucseg.method:promptnucseg", {"prompter": {}, "segmentor": {}}
    nuclei = {"kind": "generated", "manifest": "touching_nuclei", "part": "train"}
    small = {**TASK, "train": {"train": nuclei}}
    large = {**small, "sam": {"size": "vit_b_256", "checkpoint": "sam_vit_b"}}
    one, two = (protocol.parts(method, segmenter, Task(**task), 1) for task in (small, large))
    assert one["prompter"] == two["prompter"]
    assert one["prompter"]["stages"] == {}
    assert one["segmentor"] != two["segmentor"]
