"""Accuracies of judged images, and a whole evaluation of an untrained pipeline."""

import pytest
import torch

from shared.diffusion.evaluate.images import accuracies, answers, evaluate_images
from shared.diffusion.evaluate.prompts import Entry
from shared.diffusion.task import Task
from shared.diffusion.victim import Victim
from shared.diffusion.world.words import HEADS
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.errors import ConfigError


def entries():
    """Two prompts of the concept, one of its synonym, two others."""
    rows = [("circle", 0), ("circle", 0), ("circle", 1), ("bar", 0), ("ring", 0)]
    return [
        Entry(i, f"a {name}", i, 4.0, name == "circle", word, {"object": name, "style": "flat"})
        for i, (name, word) in enumerate(rows)
    ]


def test_accuracies_of_hand_counted_answers():
    right = {
        "object": torch.tensor([True, False, True, True, False]),
        "style": torch.tensor([False, False, False, True, True]),
        "colour": torch.tensor([True, True, True, False, True]),
    }
    found = accuracies(right, entries(), "object")
    assert found == {"UA_drawn": 50.0, "UA_synonym": 0.0, "IRA": 50.0, "CRA": 75.0}


def test_without_retained_prompts_there_is_no_retained_accuracy():
    only = [entry for entry in entries() if entry.target]
    assert accuracies({"object": torch.ones(3, dtype=torch.bool)}, only, "object") == {
        "UA_drawn": 0.0,
        "UA_synonym": 0.0,
    }


class Knows:
    classes = ("circle", "bar", "ring")

    def scores(self, images):
        return torch.eye(3)[[0, 1, 0, 1, 2]]


def test_answers_compare_with_what_each_prompt_wants():
    found = answers({"object": Knows()}, entries(), torch.zeros(5, 3, 4, 4, dtype=torch.uint8))
    assert found["object"].tolist() == [True, False, True, True, True]


def test_unknown_questions_and_classes_are_named():
    images = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="do not say what 'objekt' is"):
        answers({"objekt": Knows()}, entries(), images)
    with pytest.raises(ConfigError, match="'flat' is no class of the detector 'style'"):
        answers({"style": Knows()}, entries(), images)


@pytest.fixture
def task():
    sample = {"num_steps": 2, "guidance": 2.0, "batch": 72}
    heads = {name: {"kind": "shapes", "head": name} for name in HEADS}
    return Task.model_validate(
        {
            "model": {"kind": "text_to_image", "world": {}, "classifier": {}},
            "concept": {"kind": "world", "of": "object", "name": "circle", "anchor": "square"},
            "evaluate": {
                "images": {
                    "prompts": {"kind": "world"},
                    "sample": sample,
                    "heads": heads,
                    "target": "object",
                    "frechet": {"features": ["classifier"], "reference": {"manifest": "shapes_styles"}},
                    "pictures": 2,
                }
            },
        }
    )


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    ShapeClassifier(heads=HEADS).save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


def test_a_whole_evaluation_repeats_and_keeps_pictures(pipe, task, classifier):
    stages = {"classifier": classifier}
    first, again = (evaluate_images(task.evaluate.images, task, Victim(pipe), stages, seed=1) for _ in range(2))
    assert first.metrics == again.metrics
    assert set(first.metrics) == {"UA_drawn", "IRA", "CRA", "FID_world"}
    assert [picture["group"] for picture in first.extras["pictures"]] == ["target"] * 2 + ["retained"] * 2


def test_scores_only_keeps_no_picture(pipe, task, classifier):
    secret = task.model_copy(update={"scores_only": True})
    found = evaluate_images(task.evaluate.images, secret, Victim(pipe), {"classifier": classifier}, seed=1)
    assert "pictures" not in found.extras
