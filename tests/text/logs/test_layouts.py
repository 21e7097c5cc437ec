"""The three layouts: recognised by content, read into the same numbers, written and read back, checked for damage."""

import json
import lzma
from dataclasses import fields, replace

import numpy as np
import pytest

from shared.errors import DataError
from shared.text.logs.legacy import write_legacy
from shared.text.logs.log import AnswerScores, EvalLog
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.logs.read import read_log

LAYOUTS = ("legacy v1", "legacy v0", "OpenUnlearning")


def assert_equal(a, b):
    """Two logs, field by field; NaN equals NaN."""
    assert a.epsilon == b.epsilon
    assert a.sets.keys() == b.sets.keys()
    for name, scores in a.sets.items():
        for field in fields(AnswerScores):
            ours, theirs = getattr(scores, field.name), getattr(b.sets[name], field.name)
            assert (ours is None) == (theirs is None), f"{name}.{field.name}"
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}.{field.name}")


@pytest.fixture
def write(tmp_path, layouts, drawn):
    """Write a miniature log in a layout after an edit of its content; returns its path."""

    def write(layout, edit=None, sets=drawn, name="log.json"):
        content = json.loads(json.dumps(layouts[layout](sets)))
        if edit:
            edit(content)
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_into_the_same_numbers(write, drawn, layout):
    log = read_log(write(layout))
    assert log.epsilon == (1e-10 if layout == "OpenUnlearning" else 0)
    for name, s in drawn.items():
        scores = log.of(name)
        assert scores.index == list(range(len(s["loss"])))
        np.testing.assert_array_equal(scores.avg_loss, s["loss"])
        np.testing.assert_array_equal(scores.perturbed_loss, s["pert"])
        np.testing.assert_array_equal(scores.rougeL_recall, s["rougeL"])
        np.testing.assert_array_equal(scores.rouge1_recall, s["rouge1"])
        assert list(zip(scores.question, scores.generated, scores.truth, strict=True)) == [tuple(t) for t in s["texts"]]
        if name in ("retain", "forget"):
            np.testing.assert_array_equal(scores.paraphrase_loss, s["para"])
        else:
            assert scores.paraphrase_loss is None  # the answer itself stands in
        if layout != "OpenUnlearning":
            np.testing.assert_array_equal(scores.num_tokens, s["tokens"])
            np.testing.assert_array_equal(scores.perturbed_num_tokens, s["pert_tokens"])


def test_token_level_scores_and_the_holdout_set(write, drawn):
    log = read_log(write("OpenUnlearning"))
    np.testing.assert_array_equal(log.of("forget").extraction_strength, 0.25)
    np.testing.assert_array_equal(log.of("forget").min_k, 0.25)
    np.testing.assert_array_equal(log.of("holdout").min_k, 2.0 + np.arange(8))
    np.testing.assert_array_equal(log.of("holdout").avg_loss, 2.0 + np.arange(8))
    assert log.of("holdout").perturbed_loss is None


def test_a_second_measurement_of_the_answer_is_kept_where_it_differs(write):
    # Real authors in the authors' own logs: bfloat16 batching noise, and their code reads the second one.
    def noise(content):
        content["eval_real_author_wo_options.json"]["avg_paraphrased_loss"]["2"] += 0.03

    log = read_log(write("legacy v1", noise))
    scores = log.of("real_authors")
    np.testing.assert_allclose(scores.paraphrase_loss - scores.avg_loss, [0, 0, 0.03, 0], atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_may_come_in_any_order_of_keys(write, layout, drawn):
    def shuffle(content):
        for metrics in content.values():
            for key, rows in metrics.items():
                if isinstance(rows, dict):
                    metrics[key] = dict(reversed(rows.items()))

    np.testing.assert_array_equal(read_log(write(layout, shuffle)).of("retain").avg_loss, drawn["retain"]["loss"])


def test_row_numbers_are_ordered_as_numbers(tmp_path):
    index = [2, 10, 9]
    with pytest.raises(ValueError, match="avg_loss has 2 rows, index has 3"):
        AnswerScores(index=index, avg_loss=np.zeros(2))
    scores = AnswerScores(
        index=[2, 9, 10], avg_loss=np.arange(3.0), perturbed_loss=np.ones((3, 2)), rougeL_recall=np.ones(3)
    )
    write_legacy(EvalLog({"forget": scores}, "x"), tmp_path / "log.json")
    assert read_log(tmp_path / "log.json", ["forget"]).of("forget").index == [2, 9, 10]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compressed_logs(write, tmp_path, layout):
    plain = write(layout)
    packed = tmp_path / "any.name"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert_equal(read_log(packed), read_log(plain))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_legacy_round_trip(write, tmp_path, layout):
    log = read_log(write(layout))
    write_legacy(log, tmp_path / "again.json")
    again = read_log(tmp_path / "again.json")
    has_place = {name: s for name, s in log.sets.items() if name != "holdout"}
    lost = {"rougeL_f1": None, "extraction_strength": None, "min_k": None}
    expected = {name: replace(s, **lost) for name, s in has_place.items()}
    assert_equal(again, EvalLog(expected, log.source))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_open_unlearning_round_trip(write, tmp_path, layout):
    log = read_log(write(layout))
    path = write_open_unlearning(log, tmp_path / "run")
    assert path.name == "TOFU_EVAL.json"
    assert_equal(read_log(path), log)


def test_legacy_files_are_those_of_the_authors(write, tmp_path):
    source = write("legacy v1")
    write_legacy(read_log(source), tmp_path / "again.json")
    ours, theirs = json.loads((tmp_path / "again.json").read_text()), json.loads(source.read_text())
    assert ours.keys() == theirs.keys()
    for key, metrics in theirs.items():
        assert metrics.keys() == ours[key].keys() - {"normalized_gt_loss"}
        assert ("normalized_gt_loss" in ours[key]) == ("real" in key)
        for name, rows in metrics.items():
            assert ours[key][name].keys() == rows.keys()
            if name == "truth_ratio" and "forget" not in key and key != "eval_log.json":
                continue
            for row, value in rows.items():
                assert ours[key][name][row] == (value if name == "generated_text" else pytest.approx(value, rel=1e-12))


def test_open_unlearning_files_hold_their_names_and_aggregates(write, tmp_path, drawn):
    log = read_log(write("OpenUnlearning"))
    path = write_open_unlearning(log, tmp_path)
    content = json.loads(path.read_text())
    assert list(content) == sorted(content)
    assert content.keys() >= {f"{p}_Q_A_{m}" for p in ("forget", "retain") for m in ("Prob", "PARA_Prob", "PERT_Prob")}
    assert content.keys() >= {f"{p}_{m}" for p in ("ra", "wf") for m in ("Q_A_Prob_normalised", "Truth_Ratio")}
    assert content["forget_quality"] == {"agg_value": None}
    assert content["forget_Q_A_PERT_Prob"]["value_by_index"]["0"]["avg_loss"] == drawn["forget"]["pert"][0]
    ratio = np.exp(np.array(drawn["forget"]["para"]) - np.mean(drawn["forget"]["pert"], axis=1))
    scores = [row["score"] for row in content["forget_truth_ratio"]["value_by_index"].values()]
    np.testing.assert_allclose(scores, ratio, rtol=1e-6)
    assert content["forget_truth_ratio"]["agg_value"] == pytest.approx(np.minimum(ratio, 1 / ratio).mean(), rel=1e-6)
    summary = json.loads((tmp_path / "TOFU_SUMMARY.json").read_text())
    assert summary.keys() >= {"model_utility", "forget_Q_A_Prob", "mia_min_k", "privleak", "extraction_strength"}
    assert summary.keys().isdisjoint({"forget_quality", "epsilon"})
    assert summary["forget_Q_A_Prob"] == pytest.approx(np.exp(-np.array(drawn["forget"]["loss"])).mean())


def test_written_with_a_retain_log_it_has_forget_quality(write, tmp_path):
    log = read_log(write("OpenUnlearning"))
    write_open_unlearning(log, tmp_path, retain=log)
    assert json.loads((tmp_path / "TOFU_SUMMARY.json").read_text())["forget_quality"] == 1


def test_a_log_of_fewer_sets(tmp_path, write):
    log = read_log(write("legacy v1"), ["retain", "forget"])
    assert list(log.sets) == ["retain", "forget"]
    path = write_open_unlearning(log, tmp_path)
    assert_equal(read_log(path, ["retain", "forget"]), log)
    with pytest.raises(DataError, match=r"key 'ra_Q_A_Prob' is missing"):
        read_log(path)
    with pytest.raises(DataError, match=r"question set 'world_facts' is missing, the log has retain, forget"):
        log.of("world_facts")
