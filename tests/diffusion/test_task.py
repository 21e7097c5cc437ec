"""The track's tasks and recipes: what goes together, and what shares a stage."""

import copy

import pytest

from shared.diffusion import protocol
from shared.diffusion.task import Task

WORLD = {
    "model": {"kind": "text_to_image", "world": {}, "classifier": {}},
    "concept": {"kind": "world", "of": "object", "name": "circle", "anchor": "square"},
    "evaluate": {
        "attack": {
            "method": "papers.unlearndiffatk.method:no_attack",
            "prompts": {"kind": "world", "only": "concept"},
            "sample": {"num_steps": 2},
            "detector": {"kind": "shapes", "head": "object"},
            "criterion": {"classes": ["circle"], "top_k": 1},
        }
    },
}
CLASSES = {
    "model": {"kind": "class_conditional", "data": "grey_shapes", "recipe": {}, "classifier": {"kind": "small"}},
    "concept": {"kind": "class", "label": 0},
    "evaluate": {"classes": {"sample": {"num_steps": 2}}},
}
ESD = protocol.METHODS["esd"]
OPTIONS = {"trains": "cross_attention", "lr": 1e-3, "iterations": 2}


def task(base=WORLD, **changes):
    values = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Task.model_validate(values)


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [
        (WORLD, {"concept": {"kind": "class", "label": 0}}, "forgets a concept of kind 'class'"),
        (CLASSES, {"concept": WORLD["concept"]}, "forgets a concept of kind 'class'"),
        (CLASSES, {"evaluate": WORLD["evaluate"]}, "has no prompts"),
        (WORLD, {"evaluate": CLASSES["evaluate"]}, "'classes' is for class-conditional models"),
        (WORLD, {"evaluate": {}}, "nothing is measured"),
        (WORLD, {"model__checkpoint": "stable_diffusion_v1_4"}, "either a `checkpoint` or the `world`"),
        (WORLD, {"evaluate__attack__options": {"bach": 3}}, "did you mean 'batch'"),
        (WORLD, {"evaluate__attack__method": "papers.unlearndiffatk.method:no_atack"}, "did you mean 'no_attack'"),
        (WORLD, {"evaluate__attack__detector": {"kind": "nudenet"}}, "needs a 'checkpoint'"),
    ],
)
def test_what_does_not_go_together_is_refused(base, changes, says):
    with pytest.raises(ValueError, match=says):
        task(base, **changes)


def test_the_erased_model_does_not_hang_on_how_it_is_judged():
    first, other = task(), task(evaluate__attack__method="papers.unlearndiffatk.method:random_prefix")
    assert protocol.parts(ESD, OPTIONS, first, 1) == protocol.parts(ESD, OPTIONS, other, 1)
    assert protocol.sources(first) != protocol.sources(other)


def test_the_erased_model_hangs_on_seed_concept_and_options():
    recipes = [
        protocol.parts(ESD, OPTIONS, task(), 1),
        protocol.parts(ESD, OPTIONS, task(), 2),
        protocol.parts(ESD, {**OPTIONS, "lr": 2e-3}, task(), 1),
        protocol.parts(ESD, OPTIONS, task(concept__anchor="bar"), 1),
    ]
    assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])


def test_one_base_model_serves_all_seeds_and_erasers():
    stages = [protocol.stages(task(), seed) for seed in (1, 2)]
    assert stages[0] == stages[1]
    erased = protocol.parts(ESD, OPTIONS, task(), 2)[protocol.ERASED]
    assert erased["stages"] == {protocol.MODEL: stages[0][protocol.MODEL]}


@pytest.mark.parametrize(
    ("method", "options", "stored"),
    [
        ("original", {}, False),
        ("sld", {}, False),
        ("spm", {"iterations": 1}, True),
        ("spm", {"iterations": 1, "drawing": "gated"}, False),
        ("uce", {}, True),
        ("released", {"checkpoint": "x", "part": None}, True),
    ],
)
def test_what_lies_in_weights_is_a_stage(method, options, stored):
    assert bool(protocol.parts(protocol.METHODS[method], options, task(), 1)) == stored


def test_the_retrained_class_model_is_one_for_all_seeds_and_one_for_each_class():
    stages = [protocol.stages(task(CLASSES), seed) for seed in (1, 2)]
    assert stages[0] == stages[1]
    other = protocol.stages(task(CLASSES, concept__label=1), 1)
    assert other[protocol.MODEL] == stages[0][protocol.MODEL]
    assert other[protocol.RETRAINED] != stages[0][protocol.RETRAINED]
    retrain = protocol.METHODS["retrain"]
    assert protocol.RETRAINED in protocol.stages_needed(retrain, task(CLASSES))
    assert protocol.RETRAINED not in protocol.stages_needed(ESD, task(CLASSES))


def test_manifests_of_detectors_prompts_and_references():
    found = protocol.manifests(
        task(
            evaluate__attack__detector={"kind": "q16", "checkpoint": "clip", "prompts": "q16"},
            evaluate__attack__criterion={"classes": ["harmful"], "top_k": 1},
            evaluate__attack__prompts={"kind": "file", "manifest": "i2p", "file": "a.csv"},
            evaluate__images={
                "prompts": {"kind": "world"},
                "sample": {},
                "frechet": {"features": ["inception"], "reference": {"manifest": "coco_2017", "folder": "val2017"}},
                "clip": {"checkpoint": "clip_b32"},
            },
        )
    )
    assert found == ["coco_2017", protocol.INCEPTION, "clip_b32", "clip", "q16", "i2p"]
