"""Figures of the text track from records: means over seeds, distribution functions, texts that may hold anything."""

import math
import re

import numpy as np
import pytest

from shared.results.figure import Figure, Listing
from shared.results.records import Cost, Metric, Record, write_records
from shared.results.spec import parse_spec
from shared.text.figures import LARGEST_RATIO, MAX_POINTS, figures, path_of, settings, steps
from shared.text.protocol import EXTRA_METRICS, METHODS, METRICS

HOSTILE = '<script>alert("x")</script> $a_b$'
SETS = ("retain", "real_authors", "world_facts", "forget")
ROWS = {"Finetuned": METHODS["finetuned"], "Retain": METHODS["retain"], "GA": METHODS["ga"]}


def record(row, seed, points=((5, 0.5, -3.0), (10, 0.25, -1.0)), sets=SETS):
    numbers = [Metric("model_utility", points[-1][1]), Metric("ks_statistic", 0.25)]
    numbers += [Metric(f"{m}_{s}", 0.5) for m in ("probability", "rouge_l_recall", "truth_ratio") for s in sets]
    extras = {
        "trajectory": [{"epoch": e, "model_utility": u, "log10_forget_quality": q} for e, u, q in points],
        "log_truth_ratio": [-1000.0, -0.5, 0.0, 0.25, 1000.0],
        "answers": [{"question": HOSTILE, "truth": "in Oslo", "generated": f"{row} says {HOSTILE}"}],
    }
    return Record("tofu", "mini", "E2", "ten", row, seed, numbers, Cost(1.0, 4, 100.0, "cpu"), {}, extras)


@pytest.fixture
def spec(tmp_path):
    """A job spec with two seeds of each row's records behind it."""
    cells = []
    for row in ROWS:
        path = tmp_path / f"{row}.json"
        last = (0, 0.75, 0.0 if row == "Retain" else -5.0)
        write_records(path, [record(row, seed, (last,)) if row != "GA" else record(row, seed) for seed in (1, 2)])
        cells.append({"experiment": "E2", "setting": "ten", "row": row, "record": str(path)})
    return {
        "paper": "tofu",
        "scale": "mini",
        "reference": "Retain",
        "metrics": [metric.model_dump() for metric in (*METRICS, *EXTRA_METRICS)],
        "experiments": {
            "E2": {
                "title": "Trade-off",
                "metrics": ["model_utility", "log10_forget_quality"],
                "settings": {"ten": {"label": f"tiny {HOSTILE}"}, "one": {"label": "not run", "enabled": False}},
                "rows": {row: {"label": f"{row} $x", "method": method} for row, method in ROWS.items()},
                "seeds": [1, 2],
            }
        },
        "cells": cells,
        "seeds": [1, 2],
        "output": str(tmp_path),
    }


def test_every_setting_has_its_four_figures(spec):
    drawn = figures(None, spec)
    assert [type(figure) for figure in drawn] == [Figure, Figure, Figure, Listing]
    starts = ["Forget quality and utility", "What utility is made of", "Truth ratios", "Answers before and after"]
    assert [figure.title.split(":")[0] for figure in drawn] == starts
    for figure in drawn[:3]:
        assert "<script" not in figure.svg.lower()
        assert re.search(r"\(0\.25, -1\.0\)|0\.25", figure.alt)
    assert figures(None, spec) == drawn  # the same records, the same bytes


def test_without_the_reference_or_a_method_there_is_nothing_to_compare(spec):
    for kept, expected in ((("Finetuned", "GA"), 2), (("Finetuned", "Retain"), 0), ((), 0)):
        cells = [cell for cell in spec["cells"] if cell["row"] in kept]
        assert len(figures(None, {**spec, "cells": cells})) == expected


def test_an_experiment_that_lists_no_quality_is_not_drawn(spec):
    spec["experiments"]["E2"]["metrics"] = ["model_utility"]
    assert figures(None, spec) == []


def test_records_of_another_kind_are_left_out(spec):
    """A study's record has no trajectory."""
    found = settings(parse_spec(spec), {("E2", "ten", "GA"): [record("GA", 1)], ("E2", "ten", "Retain"): []})
    assert [list(setting.rows) for setting in found] == [["GA"]]
    bare = Record("tofu", "mini", "E2", "ten", "GA", 1, [], Cost(0.0, 0, 0.0, "cpu"))
    assert settings(parse_spec(spec), {("E2", "ten", "GA"): [bare]}) == []


def test_path_is_the_mean_over_the_seeds_that_have_an_epoch():
    short = record("GA", 3, ((5, 0.7, -5.0),))
    path = path_of([record("GA", 1), record("GA", 2), short])
    assert path[0] == (pytest.approx((0.5 + 0.5 + 0.7) / 3), pytest.approx(-11 / 3))
    assert path[1] == (0.25, -1.0)


@pytest.mark.parametrize("count", [1, 2, 40, MAX_POINTS, 400])
def test_steps_are_the_empirical_distribution_function(count):
    values = np.random.default_rng(count).normal(size=count)
    x, y = steps(list(values))
    assert x == sorted(x)
    assert (y[0], y[-1]) == (0.0, 1.0)
    assert len(x) <= MAX_POINTS + 1
    for at, share in zip(x[1:], y[1:], strict=True):
        assert share == pytest.approx(np.mean(values <= at))


def test_diverged_ratios_are_drawn_at_the_edge():
    x, _ = steps([-1e3, 0.0, 1e3])
    assert (min(x), max(x)) == (-LARGEST_RATIO, LARGEST_RATIO)
    assert all(math.isfinite(value) for value in x)


def test_answers_start_with_the_model_before_and_the_retain_model(spec):
    listing = figures(None, spec)[-1]
    assert [row[1] for row in listing.rows] == ["true answer", "Finetuned $x", "Retain $x", "GA $x"]
    assert [bool(row[0]) for row in listing.rows] == [True, False, False, False]
    assert listing.rows[0] == [HOSTILE, "true answer", "in Oslo"]
    assert listing.rows[3][2] == f"GA says {HOSTILE}"


def test_a_model_of_the_retain_set_alone_has_three_numbers(spec, tmp_path):
    for cell in spec["cells"]:
        write_records(cell["record"], [record(cell["row"], seed, sets=("retain", "forget")) for seed in (1, 2)])
    bars = figures(None, spec)[1]
    assert "the 3 numbers" in bars.caption
    assert "real authors" not in bars.svg
