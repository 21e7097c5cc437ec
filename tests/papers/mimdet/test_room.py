"""The room's configurations say what the paper's protocol says."""

import pytest

from papers.mimdet.options import SIZES, MimDetOptions
from shared.data.manifest import load_manifest
from shared.planning.plan import Plan


@pytest.fixture(scope="module")
def full():
    return Plan("mimdet", "full")


def recipes(plan, train):
    """Part recipes with that training function."""
    found = [job.content["recipe"] for job in plan.stages.values()]
    return [recipe for recipe in found if recipe["train"] == f"papers.mimdet.training:{train}"]


def model_of(plan, experiment, row):
    setting = next(iter(plan.config.experiments[experiment].settings))
    return plan.resolver.row(experiment, setting, row)[1]["model"]


def test_version_2_has_the_papers_recipe(full):
    for row, size, multiplier in (("MIMDet-B", "vit_b", 2.0), ("MIMDet-L", "vit_l", 3.5)):
        model = model_of(full, "E1", row)
        same = {"checkpointing": False}
        assert MimDetOptions.model_validate(model["backbone"]).model_copy(update=same) == SIZES[size]
        assert (model["lr"], model["weight_decay"], model["batch"], model["rates"]["multiplier"]) == (
            8e-5, 0.1, 64, multiplier,
        )  # fmt: skip
        assert model["mae"] == f"mae_{size}_full"
        assert model["augment"]["shorts"] == [480, 512, 544, 576, 608, 640, 736, 768, 800]
        steps = [passes * (117_266 // 64 + 1) for passes in (*model["schedule"]["milestones"], model["epochs"])]
        assert [abs(found - wanted) < 1900 for found, wanted in zip(steps, (50_625, 61_875, 67_500), strict=True)] == [
            True
        ] * 3


def test_version_1_fills_with_the_mask_token_and_doubles_rates_for_both_sizes(full):
    for row in ("B-0.25", "B-0.5", "L-0.5"):
        model = model_of(full, "E1-v1", row)
        assert model["backbone"]["fill"] == "mask_token"
        assert model["rates"]["multiplier"] == 2.0
    assert model_of(full, "E1-v1", "B-0.25-batch16")["lr"] == 4e-5
    assert [model_of(full, "E1-v1", row)["backbone"]["grid"] for row in ("B-0.5", "L-0.5")] == [50, 14]


def test_inference_uses_all_tokens_unless_the_setting_says_otherwise(full):
    for cell in full.cells:
        for job in cell.jobs:
            options = job.content["options"]
            if "ratio_test" in options:
                wanted = float(cell.setting.removeprefix("test-")) if cell.setting.startswith("test-") else 1.0
                assert options["ratio_test"] == wanted


def test_the_grid_of_shares_is_whole_and_its_settings_share_their_parts(full):
    cells = {(cell.setting, cell.row) for cell in full.cells if cell.experiment in ("E2", "E2-quarters")}
    shares = ("0.25", "0.5", "0.75", "1.0")
    assert cells == {(f"test-{test}", f"train-{train}") for test in shares for train in shares}
    ratios = {recipe["options"]["backbone"]["ratio_train"] for recipe in recipes(full, "train_mimdet")}
    assert ratios == {0.25, 0.5, 0.75, 1.0}
    # 2 sizes, 4 of version 1, 3 shares, patches, upsampled, 5 decoders, random weights, 2 shorter trainings
    assert len(recipes(full, "train_mimdet")) == 2 + 4 + 3 + 1 + 1 + 5 + 1 + 2


def test_the_baseline_is_trained_for_25_50_and_100_epochs_on_squares(full):
    found = recipes(full, "train_benchmarking")
    assert sorted(recipe["options"]["epochs"] for recipe in found) == [25, 50, 101]
    for recipe in found:
        assert recipe["options"]["augment"]["kind"] == "scale_jitter"
        assert recipe["options"]["backbone"]["axes"] == "rows"
    task = next(cell.jobs[0].content["task"] for cell in full.cells if cell.experiment == "E1-benchmarking")
    assert task["evaluate"]["size"]["kind"] == "fixed"


def test_released_files_are_brought_by_a_person(full):
    names = {
        recipe["manifests"][0] for train in ("load_mimdet", "load_benchmarking") for recipe in recipes(full, train)
    }
    assert len(names) == 8
    for name in (*names, "mae_vit_b_full", "mae_vit_l_full"):
        manifest = load_manifest(name)
        assert manifest.gate is not None
        assert manifest.gate.url.endswith(manifest.files[0].name)


def test_coco_has_eighty_classes(full):
    classes = full.config.tasks["coco"]["evaluate"]["classes"]
    assert len(set(classes)) == 80
    assert (classes[0], classes[11], classes[79]) == ("person", "stop sign", "toothbrush")


def test_at_mini_all_detectors_of_a_seed_start_from_one_autoencoder():
    plan = Plan("mimdet", "mini")
    assert len(recipes(plan, "train_mae")) == len(plan.config.seeds.test) == 2
    found = recipes(plan, "train_mimdet")
    assert len(found) == 2 * 3
    shown = {(r["options"]["backbone"]["stem"], r["options"]["backbone"]["ratio_train"]) for r in found}
    assert shown == {("conv", 0.5), ("conv", 1.0), ("patch", 0.5)}
    assert {recipe["stages"]["base"]["train"] for recipe in found} == {"papers.mimdet.training:train_mae"}
    assert {recipe["data"]["train"]["part"] for recipe in found} == {"train"}
    judged = {
        cell.jobs[0].content["task"]["evaluate"]["data"]["part"] for cell in plan.cells if cell.experiment == "E2"
    }
    assert judged == {"judge"}


def test_nuclei_train_and_test_images_are_apart():
    plan = Plan("mimdet", "dsb2018")
    assert [cell.row for cell in plan.cells] == ["Mask-R-CNN", "MIMDet"]
    task = plan.cells[0].jobs[0].content["task"]
    train, test = task["train"]["train"]["split"], task["evaluate"]["data"]["split"]
    assert (train["part"], test["part"]) == ("train", "test")
    assert train["test"] == test["test"]
