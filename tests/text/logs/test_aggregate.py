"""Aggregation of miniature logs: one result for all layouts, plain formulas, question sets, rows."""

import json

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp

from shared.errors import DataError
from shared.text.aggregate import aggregate, log_ratios
from shared.text.logs.log import AnswerScores, EvalLog
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.logs.read import read_log

LAYOUTS = ("legacy v1", "legacy v0", "OpenUnlearning")


@pytest.fixture
def read(tmp_path, layouts, draw):
    def read(layout, seed=0):
        path = tmp_path / f"log{seed}.json"
        path.write_text(json.dumps(layouts[layout](draw(seed))))
        return read_log(path)

    return read


def plain(sets, kind, epsilon=0.0):
    """The nine numbers by probabilities, as far as those do not underflow."""
    found = {}
    for name, s in sets.items():
        true, wrong = np.exp(-np.array(s["loss"])), np.exp(-np.array(s["pert"]))
        is_real = name in ("real_authors", "world_facts")
        p = true / (true + wrong.sum(1) + epsilon) if is_real else true
        mean_wrong = np.exp(-np.mean(s["pert"], axis=1)) if kind == "geometric" else wrong.mean(1)
        ratio = mean_wrong / (np.exp(-np.array(s["para"])) + epsilon)
        truth = np.minimum(ratio, 1 / (ratio + epsilon)) if name == "forget" else np.maximum(0, 1 - ratio)
        found[f"probability_{name}"] = p.mean()
        found[f"rouge_l_recall_{name}"] = np.mean(s["rougeL"])
        found[f"truth_ratio_{name}"] = truth.mean()
    found["model_utility"] = hmean([value for key, value in found.items() if not key.endswith("forget")])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["geometric", "arithmetic"])
def test_equals_the_plain_formulas(read, drawn, layout, kind):
    found = aggregate(read(layout), truth_ratio=kind)
    expected = plain(drawn, kind, 1e-10 if layout == "OpenUnlearning" else 0)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-12)
    assert "forget_quality" not in found  # never 1 for want of a retain log


@pytest.mark.parametrize("kind", ["geometric", "arithmetic"])
def test_forget_quality_is_the_ks_test_of_truth_ratios(read, draw, kind):
    found = aggregate(read("legacy v1"), read("legacy v0", seed=1), truth_ratio=kind)
    samples = []
    for seed in (0, 1):
        s = draw(seed)["forget"]
        wrong = np.exp(-np.mean(s["pert"], axis=1)) if kind == "geometric" else np.exp(-np.array(s["pert"])).mean(1)
        samples.append(wrong / np.exp(-np.array(s["para"])))
    expected = ks_2samp(*samples)
    assert found["forget_quality"] == pytest.approx(expected.pvalue, rel=1e-12)
    assert found["ks_statistic"] == pytest.approx(expected.statistic)
    assert 10 ** found["log10_forget_quality"] == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_itself_forget_quality_is_one(read, layout):
    log = read(layout)
    found = aggregate(log, log)
    assert (found["forget_quality"], found["log10_forget_quality"]) == (1, 0)


def test_epsilon_is_the_layouts_own_or_ours(read):
    log = read("OpenUnlearning")
    assert aggregate(log, epsilon=0.0)["model_utility"] == pytest.approx(aggregate(read("legacy v1"))["model_utility"])
    large = aggregate(log, epsilon=0.5)
    assert large["probability_real_authors"] < aggregate(log)["probability_real_authors"]


def test_first_rows_cut_the_fictitious_authors_only(read, drawn):
    found = aggregate(read("legacy v1"), read("legacy v1", seed=1), num_rows=4)
    cut = {name: {k: v[:4] for k, v in drawn[name].items()} for name in ("retain", "forget")} | {
        name: drawn[name] for name in ("real_authors", "world_facts")
    }
    expected = plain(cut, "geometric")
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-12)
    assert aggregate(read("legacy v1"), num_rows=300) == aggregate(read("legacy v1"))
    with pytest.raises(DataError, match="the first 0 rows are none"):
        aggregate(read("legacy v1"), num_rows=0)


def test_utility_of_a_stated_subset(read):
    log = read("legacy v1")
    found = aggregate(log, utility_sets=["retain"])
    terms = [found[f"{metric}_retain"] for metric in ("probability", "rouge_l_recall", "truth_ratio")]
    assert found["model_utility"] == pytest.approx(hmean(terms))
    assert "model_utility" not in aggregate(log, utility_sets=[])
    few = EvalLog({name: log.of(name) for name in ("retain", "forget")}, "few.json")
    with pytest.raises(DataError, match=r"few.json: question set 'real_authors' is missing"):
        aggregate(few)


def test_membership_and_memorisation(read):
    log = read("OpenUnlearning")
    found = aggregate(log)
    assert found["extraction_strength"] == 0.25
    assert found["mia_min_k"] == 1  # every forget row scores lower than every unseen one
    assert found["privleak"] == pytest.approx(-100)
    assert aggregate(log, log)["privleak"] == pytest.approx(0, abs=1e-6)


def test_what_is_written_aggregates_to_the_same(read, tmp_path):
    log, retain = read("legacy v1"), read("legacy v1", seed=1)
    path = write_open_unlearning(log, tmp_path / "run", retain)
    assert aggregate(read_log(path), retain) == aggregate(log, retain)
    summary = json.loads((tmp_path / "run" / "TOFU_SUMMARY.json").read_text())
    assert summary["model_utility"] == aggregate(log)["model_utility"]
    assert summary["forget_quality"] == aggregate(log, retain)["forget_quality"]


def scores(truth, index=(0, 1)):
    return AnswerScores(
        index=list(index),
        avg_loss=np.ones(len(index)),
        perturbed_loss=np.ones((len(index), 2)),
        rougeL_recall=np.ones(len(index)),
        truth=truth,
    )


def test_unequal_question_sets_are_refused():
    log = EvalLog({"forget": scores(["Hsiao Yun-Hwa.", "Her father."])}, "a.json")
    same = EvalLog({"forget": scores([" hsiao yun - hwa", "Her father ."])}, "b.json")  # another tokenizer's spaces
    assert aggregate(log, same, utility_sets=[])["forget_quality"] == 1
    other = EvalLog({"forget": scores(["Hsiao Yun-Hwa.", "His mother."])}, "b.json")
    with pytest.raises(DataError, match=r"a.json and b.json: different forget questions \(the true answers of row 1 d"):
        aggregate(log, other, utility_sets=[])
    short = EvalLog({"forget": scores(None, [0])}, "b.json")
    with pytest.raises(DataError, match=r"\(2 against 1 rows, row 1 is in one of them only\); give the same split"):
        aggregate(log, short, utility_sets=[])
    assert aggregate(log, short, utility_sets=[], num_rows=1)["forget_quality"] == 1


def test_without_paraphrase_the_answer_stands_in():
    log = EvalLog({"forget": scores(None)}, "a.json")
    np.testing.assert_array_equal(log_ratios(log, "forget"), [0, 0])
