"""The room's configurations say what the paper's protocol says."""

import pytest

from papers.unlearndiffatk.options import P4dOptions, UnlearnDiffAtkOptions
from shared.options import parse_options
from shared.paths import ROOT
from shared.planning.plan import Plan
from shared.results.published import lookup, read_published
from shared.results.spec import parse_spec

HARMFUL = ("nudity", "violence", "illegal")


@pytest.fixture(scope="module")
def full():
    return Plan("unlearndiffatk", "full")


@pytest.fixture(scope="module")
def mini():
    return Plan("unlearndiffatk", "mini")


def tasks(plan):
    """(experiment, setting) -> its task."""
    return {(cell.experiment, cell.setting): cell.jobs[0].content["task"] for cell in plan.cells}


def attacks(plan):
    """(experiment, setting) -> task and typed options of its attack."""
    found = {}
    for place, task in tasks(plan).items():
        spec = task["evaluate"]["attack"]
        found[place] = task, spec, parse_options(spec["method"], spec["options"])
    return found


def test_every_search_has_the_papers_schedule(full):
    searches = {
        p: (t, o) for p, (t, _, o) in attacks(full).items() if isinstance(o, UnlearnDiffAtkOptions | P4dOptions)
    }
    assert len(searches) == 6 + 2 + 8 + 2 + 1 + 6 + 1 + 8
    for (experiment, setting), (task, options) in searches.items():
        schedule = [options.times, options.steps, options.lr, options.weight_decay, options.optimizer]
        assert schedule == [50, 40, 0.01, 0.1, "adam"]
        name = task["concept"]["name"].partition(" ")[0]
        if experiment != "E5":
            assert options.num_tokens == (5 if name in HARMFUL else 3)
            assert options.place == "prefix"
        assert options.early_stop == (name != "Van"), setting
        # as they made the published numbers
        assert options.special_tokens
        assert getattr(options, "projection", "bisection") == "bisection"


def test_images_are_drawn_as_in_the_paper(full):
    for task, spec, _ in attacks(full).values():
        assert task["model"]["checkpoint"] == "stable_diffusion_v1_4"
        assert (spec["sample"]["scheduler"], spec["sample"]["num_steps"]) == ("lms", 50)
        assert spec["target"] is None or spec["target"]["num_steps"] == 25
        assert spec["prompts"]["most_tokens"] == 60


def test_harmful_prompts_leave_scores_alone(full):
    for task, spec, _ in attacks(full).values():
        harmful = spec["prompts"]["manifest"] == "unlearndiffatk_i2p"
        assert task["scores_only"] == harmful
        assert harmful == (task["concept"]["name"].partition(" ")[0] in HARMFUL)


def test_a_style_is_divided_by_fifty(full):
    denominators = {task["concept"]["name"]: spec["denominator"] for task, spec, _ in attacks(full).values()}
    assert denominators.pop("Van Gogh") == 50
    assert set(denominators.values()) == {None}


def test_a_released_victim_has_its_concept(full):
    released = {}
    for cell in full.cells:
        for job in cell.jobs:
            if "checkpoint" in job.content["options"]:
                concept = job.content["task"]["concept"]["name"]
                released.setdefault(job.content["options"]["checkpoint"], set()).add(concept)
    assert len(released) == 46 == len(list((ROOT / "data_manifests").glob("victim_*.yaml")))
    for name, concepts in released.items():
        (concept,) = concepts
        words = {"Van Gogh": "vangogh", "illegal activity": "illegal"}.get(concept, concept.replace(" ", "_"))
        assert name.endswith(f"_{words}")


def test_published_numbers_stand_beside_the_cells(full):
    spec = parse_spec(full.spec)
    numbers = read_published(ROOT / "papers" / "unlearndiffatk" / "published.csv")
    shown = set()
    for cell in spec.cells:
        for metric in spec.experiments[cell.experiment].metrics:
            found = lookup(numbers, spec, cell.experiment, cell.setting, cell.row, metric)
            if found is not None:
                shown.add(found.key)
    # rows that are in the leaderboard for Van Gogh alone are no rows here
    left_out = {key for key in numbers if key[2] in ("MACE", "RECE", "SAFREE")}
    assert len(left_out) == 12
    assert {key for key in numbers if key not in shown} == left_out


@pytest.mark.parametrize("scale", ["mini", "mini_full"])
def test_at_mini_nothing_is_downloaded_and_one_world_serves_all(scale):
    plan = Plan("unlearndiffatk", scale)
    kinds = [job.content["recipe"]["stage"] for job in plan.stages.values()]
    assert kinds.count("model") == kinds.count("classifier") == 1
    assert kinds.count("erased") == 4 * len(plan.config.seeds.test)
    manifests = {name for job in plan.stages.values() for name in job.content["manifests"]}
    assert manifests == {"shapes_styles"}


def test_at_mini_every_prompt_names_the_circle(mini):
    for task, spec, options in attacks(mini).values():
        assert task["concept"]["name"] == "circle"
        assert spec["prompts"]["only"] == "concept"
        assert not getattr(options, "special_tokens", False)
    searches = [o for _, _, o in attacks(mini).values() if isinstance(o, UnlearnDiffAtkOptions | P4dOptions)]
    random = [o for _, _, o in attacks(mini).values() if hasattr(o, "tries")]
    # as many images for a random prefix as for an optimised one
    assert {o.times for o in searches} == {o.tries for o in random}


def test_mini_full_leaves_out_only_what_needs_published_files():
    plan = Plan("unlearndiffatk", "mini_full")
    off = {
        name for name, experiment in plan.config.experiments.items()
        if not all(setting.enabled for setting in experiment.settings.values())
    }  # fmt: skip
    assert off == {"E1", "E2", "E3", *(name for name in plan.config.experiments if name.startswith("E4-"))} - {
        "E4-erased"
    }
