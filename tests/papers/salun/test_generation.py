"""The generation experiments as configured: which scale runs what, and what the unsafe one may keep."""

import csv
from pathlib import Path

import pytest

from shared.diffusion.classes.options import ClassErasingOptions
from shared.planning.plan import Plan
from shared.results.claims import check_claims

ROOM = Path(__file__).parents[3] / "papers" / "salun"


@pytest.fixture(scope="module")
def plans():
    return {scale: Plan("salun", scale) for scale in ("full", "mini", "mini_generation", "unsafe")}


def experiments(plan):
    return sorted({cell.experiment for cell in plan.cells})


def test_each_scale_runs_its_own_experiments(plans):
    assert experiments(plans["full"]) == ["E1", "E3", "E4", "E5", "E6"]
    assert experiments(plans["mini"]) == ["E1", "E3", "E4"]
    assert experiments(plans["mini_generation"]) == ["E5", "E6", "E7"]
    assert experiments(plans["unsafe"]) == ["E7"]


def test_unsafe_prompts_come_from_gated_files_and_leave_scores_alone(plans):
    jobs = [job.content for job in plans["unsafe"].rows.values()]
    assert len(jobs) == 2
    for job in jobs:
        assert job["task"]["scores_only"]
        assert job["task"]["concept"]["prompts"] == []
        assert job["task"]["concept"]["prompts_file"] == "unsafe_pairs"
        assert job["task"]["evaluate"]["attack"]["prompts"]["kind"] == "file"
        assert job["task"]["evaluate"]["attack"]["pictures"] == 0


def test_every_class_is_compared_with_the_nine_others(plans):
    jobs = [job.content for job in plans["full"].rows.values() if job.content["experiment"] == "E6"]
    assert len({job["setting"] for job in jobs}) == 10
    for job in jobs:
        concept = job["task"]["concept"]
        others = {folder for folder, name in concept["classes"].items() if name != concept["target"]}
        assert set(job["task"]["evaluate"]["images"]["frechet"]["reference"]["subfolders"]) == others
        assert set(job["task"]["evaluate"]["images"]["prompts"]["seeds"]) == set(concept["classes"].values())


def test_full_erases_the_ddpm_as_published(plans):
    """Relabelling under half of the weights, 1000 steps of 128 + 128 images, clipped; alpha sums over pixels."""
    options = {
        job.content["row"]: job.content["options"]
        for job in plans["full"].rows.values()
        if job.content["experiment"] == "E5"
    }
    defaults = ClassErasingOptions().model_dump()
    assert options["SalUn"] == defaults
    assert options["RL"] == {**defaults, "keep": 1.0}
    assert options["GA"] == {**defaults, "keep": 1.0, "forget_term": "ascend"}
    assert (defaults["iterations"], defaults["batch"], defaults["lr"], defaults["alpha"]) == (1000, 128, 1e-4, 1e-3)


def test_published_numbers_of_diffusion_models_carry_the_names_of_what_they_measure():
    with (ROOM / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "class-wise table" in row["table"]]
    metrics = {table: {row["metric"] for row in rows if row["table"].startswith(table)} for table in ("DDPM", "SD")}
    assert metrics == {"DDPM": {"UA_drawn", "FID"}, "SD": {"UA_drawn", "FID_official_cast"}}
    assert {row["checked"] for row in rows} == {"recalled"}


@pytest.mark.parametrize("scale", ["full", "mini_generation"])
def test_claims_name_cells_that_exist(plans, scale):
    claims = {claim.id: claim for claim in check_claims(ROOM / "claims.yaml", plans[scale].spec)}
    evaluated = {name for name, claim in claims.items() if claim.level_at(scale) and name.startswith(("C8", "C9"))}
    wanted = {"full": {"C8-UA", "C8-FID", "C9-UA", "C9-FID"}}
    assert evaluated == wanted.get(scale, {"C8-mini-UA", "C8-mini-FID", "C9-mini-UA", "C9-mini-FID"})
