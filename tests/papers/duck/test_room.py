"""The room's configurations say what the paper's protocol says, and its figures draw."""

import pandas
import pytest

from papers.duck.figures import movement, removed_classes, score_against_time
from shared.planning.plan import Plan

NAMELESS = {"label": ""}
SPEC = {
    "experiments": {
        "E1": {
            "settings": {"cifar10": {"label": "digits"}},
            "rows": dict.fromkeys(("Original", "FT", "DUCK"), NAMELESS),
        },
        "E3": {"settings": {"pct10": {}, "pct50": {}}, "rows": {"DUCK": NAMELESS}},
    }
}


@pytest.fixture(scope="module")
def full():
    return Plan("duck", "full")


def recipes(plan, stage):
    return [job.content["recipe"] for job in plan.stages.values() if job.content["recipe"]["stage"] == stage]


def test_every_seed_removes_another_class_from_one_original(full):
    originals, retrained = recipes(full, "original"), recipes(full, "retrain")
    assert {recipe["seed"] for recipe in originals} == {42}
    # E3 and E4 retrain for more classes, or with other networks
    single: dict[str, set[int]] = {}
    for recipe in retrained:
        if recipe["forget"]["rule"] == "class" and recipe["forget"]["num_classes"] == 1:
            single.setdefault(recipe["data"]["name"], set()).add(recipe["forget"]["class_index"])
    assert single == {
        "cifar10": set(range(10)),
        "cifar100": set(range(0, 100, 10)),
        "tiny_imagenet": set(range(0, 200, 20)),
    }


def test_the_oracle_is_trained_as_released(full):
    for recipe in recipes(full, "retrain"):
        train = recipe["train"]
        assert (train["epochs"], train["label_smoothing"]) == (30, 0.4)
        assert train["augment"] is None
        assert recipe["data"]["augment"] == {"pad": 0, "flip": False}
    for recipe in recipes(full, "original"):
        assert recipe["train"]["augment"] == {"pad": 4, "flip": True}
        assert (recipe["train"]["momentum"], recipe["train"]["label_smoothing"]) == (0.0, 0.2)
        assert recipe["data"]["name"] != "cifar10" or recipe["model"]["name"] == "resnet18"


def test_mini_shares_originals_and_random_retrains_with_salun():
    ours, theirs = Plan("duck", "mini"), Plan("salun", "mini")
    shared = [ours.stages[key].content["recipe"] for key in ours.stages.keys() & theirs.stages.keys()]
    assert sorted((recipe["stage"], recipe["seed"]) for recipe in shared) == [
        (stage, seed) for stage in ("original", "retrain") for seed in (1, 2, 3)
    ]


def cells(experiment, rows):
    """A long table: (setting, row, metric) -> mean, without spread."""
    keys = ["setting", "row", "metric", "mean"]
    frame = pandas.DataFrame([dict(zip(keys, row, strict=True)) for row in rows])
    return frame.assign(experiment=experiment, std=float("nan"))


def test_figures_draw_what_is_there():
    points = {"before": [[0, 0], [1, 1]], "after": [[0, 1], [1, 0]], "centroids": [[2, 2]], "classes": [7]}
    assert "seed 3" in movement(points, 3).caption
    one = [("cifar10", row, metric, 0.5) for row in ("Original", "FT", "DUCK") for metric in ("AUS", "RTE")]
    assert "digits" in score_against_time(cells("E1", one), SPEC).title
    assert score_against_time(cells("E1", one[:4]), SPEC) is None  # one method and the original: nothing to compare
    several = cells("E3", [("pct50", "DUCK", "AUS", 0.9), ("pct10", "DUCK", "AUS", 1.0)])
    assert "share of classes" in removed_classes(several, SPEC).svg
    assert removed_classes(several[:1], SPEC) is None
