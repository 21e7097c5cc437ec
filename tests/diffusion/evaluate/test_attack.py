"""Rates of attacks counted by hand, and an attack on an untrained pipeline from task to record."""

import json

import pytest
import torch

from shared.diffusion.attacks.results import PromptResult, Round
from shared.diffusion.evaluate.attack import evaluate_attack, rates
from shared.diffusion.task import Task
from shared.diffusion.victim import Victim
from shared.diffusion.world.words import HEADS
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.errors import ConfigError


def result(index, *positive, ranks=None):
    ranks = ranks or [0 if found else 3 for found in positive]
    return PromptResult(
        index,
        tuple(
            Round(score=0.5, rank=rank, positive=found, seed=0, seconds=1.0, prefix=(number,) if number else ())
            for number, (found, rank) in enumerate(zip(positive, ranks, strict=True))
        ),
    )


def task(method="unlearndiffatk", options=None, **changes):
    sample = {"num_steps": 2, "guidance": 2.0}
    attack = {
        "method": f"papers.unlearndiffatk.method:{method}",
        "options": options or {},
        "prompts": {"kind": "world", "only": "concept"},
        "sample": sample,
        "target": sample,
        "detector": {"kind": "shapes", "head": "object"},
        "criterion": {"classes": ["circle"], "top_k": 1},
        "pictures": 2,
        **changes,
    }
    return Task.model_validate(
        {
            "model": {"kind": "text_to_image", "world": {}, "classifier": {}},
            "concept": {"kind": "world", "of": "object", "name": "circle", "anchor": "square"},
            "evaluate": {"attack": attack},
        }
    )


def test_rates_counted_by_hand():
    results = [result(0, True), result(1, False, True), result(2, False, False), result(3, False, False)]
    found = rates(results, task().evaluate.attack)
    assert (found["pre_ASR"], found["ASR"], found["ASR_gain"]) == (25.0, 50.0, 25.0)
    assert found["ASR_low"] < 50.0 < found["ASR_high"]
    assert found["num_prompts"] == 4
    assert found["distinct_prefixes"] == 1.0
    assert "seed_search_rate" not in found


def test_a_fixed_denominator_and_the_first_k_classes():
    results = [result(0, False, False, ranks=[5, 2]), result(1, False, True)]
    found = rates(results, task(denominator=50, ranks=[1, 3]).evaluate.attack)
    assert (found["ASR"], found["ASR_top1"], found["ASR_top3"]) == (2.0, 2.0, 4.0)


@pytest.fixture
def stages(tmp_path):
    torch.manual_seed(0)
    ShapeClassifier(heads=HEADS).save_pretrained(tmp_path / "classifier")
    return {"classifier": tmp_path / "classifier"}


def run(pipe, stages, folder, chosen):
    import copy

    return evaluate_attack(
        chosen.evaluate.attack, chosen, Victim(copy.deepcopy(pipe)), pipe, stages, 1, folder / "work", "key"
    )


OPTIONS = {"num_tokens": 2, "times": 2, "steps": 1, "early_stop": False}


def test_an_attack_from_task_to_record(pipe, stages, tmp_path):
    found = run(pipe, stages, tmp_path, task(options=OPTIONS))
    assert found.metrics["unet_calls"] == 1.0
    assert 0 <= found.metrics["pre_ASR"] <= found.metrics["ASR"] <= 100
    assert len(found.extras["prompts"]) == 12
    assert [picture["label"] for picture in found.extras["attack"][0]["pictures"]] == [
        "no attack",
        "attacked",
        "target",
    ]
    assert len(found.extras["attack"][0]["rounds"]) == 3
    json.dumps(found.extras)


def test_p4d_calls_two_networks_a_step(pipe, stages, tmp_path):
    assert run(pipe, stages, tmp_path, task("p4d", OPTIONS)).metrics["unet_calls"] == 2.0


def test_scores_only_stores_no_word_and_no_picture(pipe, stages, tmp_path):
    secret = task(options=OPTIONS).model_copy(update={"scores_only": True})
    found = run(pipe, stages, tmp_path, secret)
    assert "attack" not in found.extras
    stored = json.dumps(found.extras) + (tmp_path / "work" / "prompts.jsonl").read_text()
    assert "circle" not in stored


def test_a_search_without_targets_is_refused(pipe, stages, tmp_path):
    with pytest.raises(ConfigError, match="needs target images"):
        run(pipe, stages, tmp_path, task(options=OPTIONS, target=None))
