"""Configurations, claims and published numbers of the room."""

import pytest

from papers.tofu.method import BASELINES
from papers.tofu.scores import forget_truth_ratio, kept_forget_quality, rouge_on_learned, useful_forget_quality
from shared.config import raw_config, scales
from shared.paths import ROOT
from shared.planning.plan import Plan
from shared.results.claims import read_claims
from shared.results.published import lookup, read_published
from shared.results.spec import parse_spec

PAPERS = {"GA": "GradAscent", "GD": "GradDiff", "IdkDPO": "IdkDPO", "NPO": "NPO", "SimNPO": "SimNPO", "RMU": "RMU"}


@pytest.fixture(scope="module")
def full():
    return Plan("tofu", "full")


def options(plan, experiment, setting, row):
    return plan.resolver.row(experiment, setting, row)[1]


def test_every_claim_of_the_paper_is_there():
    claims = read_claims(ROOT / "papers" / "tofu" / "claims.yaml")
    assert {claim.id.split("-")[0] for claim in claims} == {f"C{i}" for i in range(1, 10)}
    hard_at_mini = {claim.id for claim in claims if claim.level_at("mini") == "hard"}
    assert {"C1", "C2-full", "C2-retain", "C3", "C6-utility", "C7", "C9"} >= hard_at_mini
    assert {claim.level_at("logs") for claim in claims} == {"hard", None}


def test_full_has_the_switches_that_made_the_published_numbers(full):
    for row in ("GA", "GD", "KL", "PO"):
        found = options(full, "E2", "llama2_forget10", row)
        expected = {"pairing": "legacy", "drop_last": True, "lr": 1e-5, "epochs": 5, "batch": 32, "weight_decay": 0.01}
        assert {key: found[key] for key in expected} == expected
    assert options(full, "E2", "phi_forget10", "KL")["kl_positions"] == "all"
    assert options(full, "E2", "phi_forget10", "PO")["mean"] == "concatenated"
    found = options(full, "E4", "llama3_1b_forget10", "SimNPO")
    assert (found["beta"], found["gamma"], found["alpha"], found["epochs"]) == (4.5, 0.125, 1, 10)
    assert options(full, "E4", "llama2_forget01", "RMU")["rmu_broadcast"] is True
    tasks = {cell.experiment: cell.jobs[0].content.get("task") for cell in full.cells if cell.setting[:6] == "llama2"}
    assert tasks["E2"]["profile"] == "legacy"
    assert tasks["E2"]["evaluate"]["num_rows"] == 300
    assert (tasks["E4"]["profile"], tasks["E4"]["evaluate"]["num_rows"]) == ("open_unlearning", None)
    assert (tasks["E4"]["evaluate"]["epsilon"], tasks["E4"]["evaluate"]["max_new"]) == (1e-10, 200)


def test_the_papers_baselines_are_the_rows_of_its_figures(full):
    rows = raw_config("tofu", "full")["experiments"]["E2"]["rows"]
    unlearned = {row["method"] for name, row in rows.items() if name not in ("Finetuned", "Retain")}
    assert unlearned == set(BASELINES.values())
    assert all(BASELINES[name] in full.tracks["text"].METHODS for name in BASELINES)


def test_a_target_model_is_trained_once_for_all_forget_sets(full):
    """One for each paper model, and one small GPT; OpenUnlearning's are released."""
    trained = [job.content["recipe"] for job in full.stages.values() if "train" in job.content["recipe"]]
    targets = [recipe for recipe in trained if recipe["stage"] == "target"]
    assert len(targets) == 3
    released = [job.content["recipe"] for job in full.stages.values() if "checkpoint" in job.content["recipe"]]
    assert {recipe["checkpoint"] for recipe in released} == {
        "open_unlearning_llama2_7b_full",
        "open_unlearning_llama32_1b_full",
        *(f"open_unlearning_llama32_1b_retain{share}" for share in (90, 95, 99)),
    }


def test_every_published_number_of_the_table_stands_beside_a_cell(full):
    spec = parse_spec(full.spec)
    numbers = read_published(ROOT / "papers" / "tofu" / "published.csv")
    table = spec.experiments["E4"]
    beside = [
        lookup(numbers, spec, "E4", setting, row, metric)
        for setting in table.settings
        for row in table.rows
        for metric in table.metrics
    ]
    of_table = [number for number in numbers.values() if number.table == "OpenUnlearning repro table"]
    assert sorted(number.line for number in beside if number) == sorted(number.line for number in of_table)
    assert len(of_table) == 2 * 3 * 8 * 3
    assert lookup(numbers, spec, "E4", "llama2_forget10", "GA", "forget_quality").value == 1.06e-239
    for ours, theirs in PAPERS.items():
        assert table.rows[ours].published == theirs


def test_table_1_is_shown_and_marked_as_recalled(full):
    spec = parse_spec(full.spec)
    numbers = read_published(ROOT / "papers" / "tofu" / "published.csv")
    shown = {
        (setting, row): lookup(numbers, spec, "E1", setting, row, "ROUGE-L on fine-tuning data")
        for setting in ("llama2_forget10", "phi_forget10")
        for row in ("Pretrained", "Finetuned")
    }
    assert shown["phi_forget10", "Finetuned"].value == 0.8810
    assert {number.mark for number in shown.values()} == {"recalled"}


def test_every_scale_but_full_runs_without_weights_of_others():
    for scale in set(scales("tofu")) - {"full", "larger"}:
        plan = Plan("tofu", scale)
        models = [job.content["task"]["model"] for job in plan.rows.values() if "task" in job.content]
        assert all(model["checkpoint"] is None for model in models), scale
    assert Plan("tofu", "mini").rows
    needed = {name for job in Plan("tofu", "mini").rows.values() for name in job.content["manifests"]}
    assert needed == {"tiny_authors"}


def test_scales_are_values_only():
    """No scale adds an experiment or a row to those of full."""
    full = raw_config("tofu", "full")
    for scale in scales("tofu"):
        found = raw_config("tofu", scale)
        assert set(found["experiments"]) == set(full["experiments"])
        for name, experiment in found["experiments"].items():
            assert set(experiment["rows"]) == set(full["experiments"][name]["rows"]), (scale, name)
            assert set(experiment["settings"]) == set(full["experiments"][name]["settings"]), (scale, name)


def test_derived_numbers():
    values = {"truth_ratio_forget": 0.6, "rouge_l_recall_retain": 0.9, "forget_quality": 0.3}
    assert forget_truth_ratio(values, {}) == 0.6
    assert rouge_on_learned(values, {}) == 0.9
    for utility, expected in ((0.57, 0.3), (0.569, 0.0)):
        assert useful_forget_quality({**values, "model_utility": utility}, {"model_utility": 0.6}) == expected
    for probability, expected in ((0.41, 0.3), (0.4, 0.0)):
        assert (
            kept_forget_quality({**values, "probability_retain": probability}, {"probability_retain": 0.8}) == expected
        )
