"""What a configuration may say about an evaluation, and what it may not."""

import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from shared.segmentation.evaluate.spec import DetectionsSpec, EvaluationSpec, InstancesSpec, PromptedSpec, PromptSpec

DATA = {"kind": "generated", "manifest": "thin_shapes", "part": "in_family", "labels": "fine"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "points"}, "num: prompts of kind .points. need"),
        ({"kind": "box", "num": 3}, "num: prompts of kind 'box' have no number"),
        ({"kind": "points", "num": 3, "negatives": 2}, "negatives: these and the kind"),
        ({"kind": "points_and_background", "num": 3}, "negatives: these and the kind"),
        ({"kind": "interior_point", "noise": 0.2}, "noise: that of boxes"),
        ({"noise": 1.0}, "less than 1"),
        ({"kind": "mask"}, "Input should be"),
    ],
)
def test_parts_of_a_prompt_that_do_not_fit(values, message):
    with pytest.raises(ValidationError, match=message):
        PromptSpec(**values)


def test_only_random_prompts_are_drawn_again():
    for values, trials in [
        ({}, 1),
        ({"noise": 0.2}, 3),
        ({"kind": "points", "num": 3}, 3),
        ({"kind": "interior_point"}, 1),
    ]:
        assert PromptedSpec(data=DATA, prompt=PromptSpec(**values), trials=3).num_trials == trials


def test_the_kind_chooses_the_evaluation_and_its_manifests():
    adapter = TypeAdapter(Annotated[EvaluationSpec, Field(discriminator="kind")])
    prompted = adapter.validate_python({"kind": "prompted", "data": DATA, "prompt": {"kind": "points", "num": 5}})
    assert isinstance(prompted, PromptedSpec)
    assert prompted.manifests() == ["thin_shapes"]
    instances = adapter.validate_python({"kind": "instances", "data": DATA, "classes": ["Dead", "Epithelial"]})
    assert isinstance(instances, InstancesSpec)
    assert instances.num_classes == 2
    found = adapter.validate_python(
        {"kind": "detections", "data": DATA, "detector": {"manifest": "boxes", "file": "coco.json"}}
    )
    assert isinstance(found, DetectionsSpec)
    assert found.manifests() == ["thin_shapes", "boxes"]


@pytest.mark.parametrize("classes", [["a", "a"], [], ["a b"]])
def test_class_names_become_metric_names(classes):
    with pytest.raises(ValidationError):
        InstancesSpec(data=DATA, classes=classes)


def test_planning_and_figures_import_no_torch():
    code = (
        "import shared.segmentation.evaluate.spec, shared.segmentation.figures, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
