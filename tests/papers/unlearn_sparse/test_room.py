"""The room: published table against itself, dense values on the sparse model, figures, and bad configurations."""

import re

import pandas
import pytest

from papers.unlearn_sparse import figures as module
from papers.unlearn_sparse.figures import figures
from shared.config import load_config
from shared.errors import ConfigError
from shared.options import parse_options
from shared.paths import ROOT
from shared.planning.plan import Plan
from shared.results.published import read_published

PUBLISHED = read_published(ROOT / "papers" / "unlearn_sparse" / "published.csv")
TABLE = "Main table (Table 3)"
SETTINGS = sorted({number.setting for number in PUBLISHED.values()})
METHODS = ["FT", "GA", "FF", "IU"]


def value(setting, row, metric):
    return PUBLISHED[TABLE, setting, row, metric].value


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_published_disparity_is_the_mean_of_the_published_gaps(setting, method):
    """One entry of the printed table (random, sparse, IU) is off by 0.04."""
    gaps = [abs(value(setting, method, m) - value(setting, "Retrain", m)) for m in ("UA", "MIA", "RA", "TA")]
    printed = value(setting, method, "Avg. Gap")
    odd = method == "IU" and setting == "CIFAR-10 ResNet-18 random 10% 95% sparsity"
    assert sum(gaps) / 4 == pytest.approx(printed, abs=0.05 if odd else 0.011)


def test_published_pairs_satisfy_the_claim():
    for scenario in ("class-wise", "random 10%"):
        for method in METHODS:
            dense, sparse = (
                value(f"CIFAR-10 ResNet-18 {scenario} {kind}", method, "Avg. Gap") for kind in ("dense", "95% sparsity")
            )
            assert sparse < dense


@pytest.mark.parametrize("scale", ["full", "mini", "mini_10_seeds"])
def test_the_sparse_model_gets_the_dense_values(scale):
    plan = Plan("unlearn_sparse", scale)
    for dense, sparse in (("E1", "E2"), ("E6", "E6-sparse")):
        for setting in plan.config.experiments[dense].settings:
            for row in plan.config.experiments[dense].rows:
                assert plan.resolver.row(dense, setting, row) == plan.resolver.row(sparse, setting, row)


@pytest.mark.parametrize("scale", ["full", "mini", "mini_10_seeds"])
def test_names_of_settings_tell_the_sparsity(scale):
    """The figures read it there."""
    plan = Plan("unlearn_sparse", scale)
    for experiment in ("E4", "E5"):
        for name, setting in plan.config.experiments[experiment].settings.items():
            pruning = plan.resolver.task(experiment, setting).pruning
            assert module.sparsity_of(name) == pytest.approx(pruning.sparsity if pruning else 0.0)


def test_full_sets_what_made_the_published_numbers():
    plan = Plan("unlearn_sparse", "full")
    _, class_wise = plan.resolver.row("E1", "classwise", "FF")
    _, random = plan.resolver.row("E1", "random10", "FF")
    assert class_wise["gradients"] == random["gradients"] == "per_batch"
    assert (class_wise["reset_last_class"], random["reset_last_class"]) == (False, True)
    task = plan.resolver.task("E2", plan.config.experiments["E2"].settings["random10"])
    assert task.forget.split_seed_bug
    assert (task.pruning.method, task.pruning.sparsity, task.pruning.rewind_epoch) == ("omp", 0.95, 8)
    assert task.pruning.rewind_schedule


def test_disabled_settings_say_why():
    for scale in ("full", "mini"):
        for experiment in load_config("unlearn_sparse", scale).experiments.values():
            for setting in experiment.settings.values():
                assert setting.enabled or setting.why_not


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "papers.unlearn_sparse.method:l1_sparse",
            {"lr": 0.1, "gamma": 1e-4, "shedule": "x"},
            "did you mean .schedule.",
        ),
        ("papers.unlearn_sparse.method:l1_sparse", {"lr": 0.1, "gamma": -1.0}, "gamma"),
        ("papers.unlearn_sparse.method:finetune_prune", {"lr": 0.1, "sparsity": 1.0}, "sparsity"),
        ("papers.unlearn_sparse.bound:bound", {"sparsity": 1.5}, "sparsity"),
        ("shared.classification.fisher:fisher_forgetting", {"alpha": 1.0, "gradients": "batch"}, "per_batch"),
    ],
)
def test_bad_options_are_one_line(method, options, message):
    with pytest.raises(ConfigError, match=message) as raised:
        parse_options(method, options)
    assert "\n" not in str(raised.value)


def frame(settings):
    """Cells as the tables have them: every metric of every row, one number each."""
    lines = [
        {"experiment": e, "setting": s, "row": r, "metric": m, "mean": 10.0 + i, "std": None, "status": "measured"}
        for i, (e, s, r, m) in enumerate(
            (e, s, r, m)
            for e, names in settings.items()
            for s in names
            for r in ["Retrain", "Original", "l1-sparse", *METHODS]
            for m in ["UA", "MIA", "RA", "TA", "ASR", "Avg. Gap"]
        )
    ]
    return pandas.DataFrame(lines)


def test_figures_draw_what_is_measured():
    spec = Plan("unlearn_sparse", "mini").spec
    both = ["classwise", "random10"]
    everything = {"E1": both, "E2": both, "E3": both, "E4": ["dense", "omp-0.9", "synflow-0.9"], "E5": ["s0", "s90"]}
    drawn = figures(frame(everything), spec)
    assert [figure.title for figure in drawn] == [
        "Prune first, then unlearn",
        "l1-sparse unlearning",
        "Pruning method and sparsity",
        "Trojan cleanse",
    ]
    assert all(re.search(r"<svg", figure.svg) for figure in drawn)
    assert "SynFlow" in drawn[2].svg
    assert "IMP" not in drawn[2].svg
    assert [figure.title for figure in figures(frame({"E3": ["classwise"], "E5": ["s0"]}), spec)] == [
        "l1-sparse unlearning"
    ]
