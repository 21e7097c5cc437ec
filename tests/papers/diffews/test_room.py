"""The room's configurations say what the paper's protocol says."""

import pytest

from shared.planning.plan import Plan


@pytest.fixture(scope="module")
def full():
    return Plan("diffews", "full")


def recipes(plan, name="fine_tune"):
    found = [job.content["recipe"] for job in plan.stages.values()]
    return [recipe for recipe in found if recipe["train"].endswith(f":{name}")]


def options(plan, experiment, setting, row):
    return plan.resolver.row(experiment, setting, row)[1]


def test_every_row_has_the_papers_recipe(full):
    trained = recipes(full)
    for recipe in trained:
        values = recipe["options"]
        shown = [values[key] for key in ("lr", "weight_decay", "schedule", "warmup", "max_grad_norm", "side", "steps")]
        assert shown == [1e-5, 0.01, "linear", 0.0, 1.0, 512, 10_000]
        assert values["padded_text"]
        assert values["start"] == {"kind": "stable_diffusion", "manifest": "stable_diffusion_2_1"}
        assert recipe["stages"] == {}
    assert {recipe["options"]["batch"] for recipe in trained} == {4, 16}
    assert {recipe["options"]["shots"] for recipe in trained} == {1, 5, 7}


def test_strict_rows_learn_from_the_other_classes_of_their_fold(full):
    for fold in range(4):
        cell = next(c for c in full.cells if (c.experiment, c.setting, c.row) == ("E2", f"fold{fold}-5", "DiffewS"))
        task = cell.jobs[0].content["task"]
        assert task["train"]["train"] == {"kind": "coco_20i", "manifest": "coco_20i", "part": "trn", "fold": fold}
        assert task["evaluate"]["data"]["part"] == "val"
        assert task["evaluate"]["data"]["fold"] == fold
        draw = task["evaluate"]["draw"]
        assert [draw[key] for key in ("rule", "number", "seed", "shots", "repeat_examples")] == [
            "class",
            1000,
            0,
            5,
            True,
        ]
        assert options(full, "E2", f"fold{fold}-5", "released")["folder"] == f"coco_fold{fold}"


def test_thresholds_are_relative_in_the_main_table_and_absolute_in_ablations(full):
    main, ablation = options(full, "E2", "fold0-1", "DiffewS"), options(full, "E5", "novel", "blend")
    assert (main["threshold"], main["tau"]) == ("relative", 0.25)
    assert (ablation["threshold"], ablation["tau"]) == ("absolute", 0.1)
    assert options(full, "E3", "rel0.4", "DiffewS")["tau"] == 0.4
    assert options(full, "E3", "abs0.15", "DiffewS")["threshold"] == "absolute"


def test_all_thresholds_judge_one_network(full):
    stages = {
        str(stage["output"])
        for cell in full.cells
        if cell.experiment == "E3"
        for job in cell.jobs
        for of_seed in job.content["stages"].values()
        for stage in of_seed.values()
    }
    assert len(stages) == 1


def test_lvis_is_drawn_class_after_class_from_the_published_lists(full):
    cells = [cell for cell in full.cells if cell.experiment == "E1" and cell.setting.startswith("lvis")]
    folds = [cell.jobs[0].content["task"]["evaluate"] for cell in cells if cell.row == "DiffewS"]
    assert [fold["data"]["fold"] for fold in folds] == list(range(10))
    assert {(f["draw"]["rule"], f["draw"]["number"], f["data"]["lists_manifest"]) for f in folds} == {
        ("class_cycle", 2300, "lvis_92i")
    }


@pytest.mark.parametrize("scale", ["mini", "mini_long"])
def test_at_mini_all_rows_of_a_seed_start_from_one_model(scale):
    plan = Plan("diffews", scale)
    trained = recipes(plan)
    assert len(recipes(plan, "pretrain")) == len(plan.config.seeds.test)
    assert {recipe["options"]["steps"] for recipe in trained} == {400}
    assert {tuple(recipe["options"]["classes"]) for recipe in trained} == {
        ("circle", "square", "triangle", "plus", "star", "ring")
    }
    evaluated = {
        tuple(cell.jobs[0].content["task"]["evaluate"]["classes"]) for cell in plan.cells if cell.experiment != "cost"
    }
    assert ("bar", "cut_disc") in evaluated


def test_what_is_judged_is_not_trained_on_or_chosen_by():
    plan = Plan("diffews", "mini")
    for cell in plan.cells:
        if cell.experiment != "cost":
            task = cell.jobs[0].content["task"]
            assert task["train"]["train"]["part"] == "train"
            assert task["evaluate"]["data"]["part"] == "test"
    assert plan.config.tuning.change == {"evaluate": {"data": {"part": "validation"}}}
