"""The room's configurations say what the paper's protocol says, and its figures draw."""

import pandas
import pytest

from papers.hq_sam.figures import NOISES, figures
from papers.hq_sam.scores import same
from shared.planning.plan import Plan


@pytest.fixture(scope="module")
def full():
    return Plan("hq_sam", "full")


def parts(plan):
    return [job.content["recipe"] for job in plan.stages.values() if job.content["recipe"]["stage"] == "part"]


def test_every_tuned_row_has_the_papers_recipe(full):
    trained = [recipe for recipe in parts(full) if "released" not in recipe["train"]]
    assert len(trained) == 21  # 19 with ViT-L, and HQ-SAM with B and H
    for recipe in trained:
        options = recipe["options"]
        shown = [options[key] for key in ("epochs", "batch", "lr", "milestones", "gamma", "jitter", "loss_points")]
        assert shown == [12, 32, 1e-3, [10], 0.1, True, 12544]
        assert options["prompts"] == ["box", "points", "mask"]


def test_hqseg_44k_has_its_seven_folders(full):
    folders = {
        recipe["options"]["data"]: [f["images"] for f in recipe["data"][recipe["options"]["data"]]["folders"]]
        for recipe in parts(full)
        if recipe["data"]
    }
    everything = ["DIS-TR/im", "ThinObject5K/images_train", "fss_all", "DUTS-TR", "DUTS-TE", "ecssd", "MSRA_10K"]
    assert folders == {
        "train": everything,
        "without_dis": everything[1:],
        "without_thin": [everything[0], *everything[2:]],
        "without_both": everything[2:],
    }


def test_the_four_sets_are_scored_by_the_hq_token_alone_and_coco_by_the_sum(full):
    for cell in full.cells:
        for job in cell.jobs:
            if cell.row == "HQ-SAM" and cell.experiment in ("E1", "E2", "E3", "E4-B", "E5", "E6", "E8-parts"):
                assert job.content["options"]["hq_token_only"]
    assert not full.resolver.row("E3", "coco", "HQ-SAM")[1]["hq_token_only"]
    assert not full.resolver.row("E7-BIG", "box", "HQ-SAM")[1]["hq_token_only"]


def test_an_average_is_over_sets_and_points_are_drawn_three_times(full):
    by_cell = {(cell.experiment, cell.setting): cell.jobs[0].content["task"] for cell in full.cells if "E10" not in
               cell.experiment}  # fmt: skip
    average = by_cell["E1", "average"]["evaluate"]
    assert average["average"] == "sets"
    assert [part["folders"][0]["images"] for part in average["data"]["of"]] == [
        "DIS-VD/im", "COIFT/images", "HRSOD/images", "ThinObject5K/images_test",
    ]  # fmt: skip
    assert average["data"]["of"][2]["folders"][0]["masks"] == "HRSOD/masks_max255"
    assert all(by_cell["E5", setting]["evaluate"]["trials"] == 3 for name, setting in by_cell if name == "E5")
    assert by_cell["E6", "noise04"]["evaluate"]["prompt"]["noise"] == 0.4


@pytest.mark.parametrize("scale", ["mini", "mini_long"])
def test_at_mini_all_rows_of_a_seed_start_from_one_sam(scale):
    plan = Plan("hq_sam", scale)
    recipes = parts(plan)
    assert {recipe["options"]["epochs"] * recipe["options"]["steps_per_epoch"] for recipe in recipes} == {120}
    assert {recipe["stages"]["sam"]["pretrain"]["steps_per_epoch"] for recipe in recipes} == {120}
    assert {recipe["stages"]["sam"]["data"]["labels"] for recipe in recipes} == {"coarse"}
    labels = {recipe["options"]["data"]: recipe["data"][recipe["options"]["data"]]["labels"] for recipe in recipes}
    assert labels == {"train": "fine", "sa1b": "coarse"}
    sams = [job for job in plan.stages.values() if job.content["recipe"]["stage"] == "sam"]
    assert len(sams) == len(plan.config.seeds.test)


def test_nuclei_to_train_on_to_choose_by_and_to_judge_by_are_apart():
    plan = Plan("hq_sam", "dsb2018")
    tasks = {cell.setting: cell.jobs[0].content["task"] for cell in plan.cells}
    for setting, task in tasks.items():
        data = [task["sam"]["data"]["of"], task["train"]["train"]["of"], task["evaluate"]["data"]]
        assert [part["split"]["part"] for part in data] == ["train", "train", setting]
        assert len({(part["split"]["test"], part["split"]["validation"]) for part in data}) == 1
        zooms = [task["sam"]["data"]["zoom"], task["train"]["train"]["zoom"], task["evaluate"]["zoom"]]
        assert zooms == [zooms[0]] * 3
    rows = ["Otsu", "SAM", "FT-decoder", "HQ-SAM-sum", "HQ-SAM"]
    assert [cell.row for cell in plan.cells if cell.setting == "test"] == rows


def table(settings, experiment):
    rows = [
        (experiment, setting, row, "mBIoU", 50.0 + place, 40.0)
        for place, setting in enumerate(settings)
        for row in ("SAM", "HQ-SAM")
    ]
    frame = pandas.DataFrame(rows, columns=["experiment", "setting", "row", "metric", "mean", "published"])
    return frame.assign(std=float("nan"), status="measured")


def test_figures_draw_what_is_there(full):
    assert figures(table(["coift-1"], "E5"), full.spec) == []
    points, noise = figures(pandas.concat([table(["coift-1", "coift-10"], "E5"), table(list(NOISES), "E6")]), full.spec)
    assert points.title == "Points: COIFT, zero-shot"
    assert "HQ-SAM 1: 50.0, 10: 51.0" in points.alt
    assert "published" in points.svg
    assert "0.4: 52.0" in noise.alt


def test_a_published_name_is_the_measured_value():
    assert same({"AP_B_strict": 8.6}, {}) == 8.6
