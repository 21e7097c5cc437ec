"""Logs of diverged models, and damaged logs: valid JSON, and one line that names file, metric and row."""

import json
import lzma

import numpy as np
import pytest

from shared.errors import DataError
from shared.text.aggregate import aggregate
from shared.text.logs.legacy import write_legacy
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.logs.read import read_log

LAYOUTS = ("legacy v1", "legacy v0", "OpenUnlearning")


def strict_json(path):
    """Content of a file, refusing what is not JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def write(tmp_path, layouts, drawn):
    def write(layout, edit=None):
        content = json.loads(json.dumps(layouts[layout](drawn)))
        if edit:
            edit(content)
        path = tmp_path / "log.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def diverged(drawn):
    """Losses of a model after gradient ascent: huge, infinite and not a number."""
    for s in drawn.values():
        n = len(s["loss"])
        s["loss"] = [np.nan, np.inf, *([2000.0] * (n - 2))]
        s["para"] = [np.inf, 3000.0, *([np.nan] * (n - 2))]
        s["pert"] = [[np.inf] * len(row) for row in s["pert"]]
        s["pert"][1][0] = np.nan
    return drawn


@pytest.mark.parametrize("layout", LAYOUTS)
def test_diverged_losses_survive_and_the_files_stay_json(write, diverged, layout, tmp_path):
    log = read_log(write(layout))  # with the bare words NaN and Infinity, as Python's json writes them
    np.testing.assert_array_equal(log.of("forget").avg_loss, diverged["forget"]["loss"])
    write_legacy(log, tmp_path / "legacy.json")
    paths = [tmp_path / "legacy.json", write_open_unlearning(log, tmp_path / "run")]
    for path in paths:
        strict_json(path)
        again = read_log(path)
        for name, s in diverged.items():
            np.testing.assert_array_equal(again.of(name).avg_loss, s["loss"])
            np.testing.assert_array_equal(again.of(name).perturbed_loss, s["pert"])
    strict_json(tmp_path / "run" / "TOFU_SUMMARY.json")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["geometric", "arithmetic"])
def test_diverged_model_has_utility_zero_and_small_forget_quality(
    write, draw, diverged, layout, kind, layouts, tmp_path
):
    good = tmp_path / "good.json"
    good.write_text(json.dumps(layouts[layout](draw(0))))
    found = aggregate(read_log(write(layout)), read_log(good), truth_ratio=kind)
    assert found["model_utility"] == 0
    # Six rows, complete separation: 2 / C(12, 6). With epsilon one row has the ratio 0 / 1e-10: five steps of six.
    expected = (2 + 22) / 924 if layout == "OpenUnlearning" else 2 / 924
    assert found["forget_quality"] == pytest.approx(expected)
    assert np.isfinite(list(found.values())).all()


def drop(*path):
    def edit(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return edit


def put(value, *path):
    def edit(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return edit


V1, V0, OU = LAYOUTS
RETAIN, FORGET, PROB = "eval_log.json", "eval_log_forget.json", "forget_Q_A_Prob"
ROUGE = "forget_Q_A_ROUGE"


@pytest.mark.parametrize(
    ("layout", "edit", "line"),
    [
        (V1, drop(FORGET), r"top key 'eval_log_forget.json' is missing"),
        (V0, drop("eval_real_world_wo_options.json"), r"top key 'eval_real_world_wo_options.json' is missing"),
        (V1, put(3, RETAIN), r"eval_log.json is not an object"),
        (V1, drop(RETAIN, "rougeL_recall"), r"eval_log.json: key 'rougeL_recall' is missing \(did you mean 'rouge"),
        (V1, drop(RETAIN, "average_perturb_loss"), r"key 'average_perturb_loss' is missing"),
        (V0, drop(RETAIN, "avg_paraphrased_loss"), r"key 'avg_paraphrased_loss' is missing"),
        (V1, put(3, RETAIN, "rougeL_recall"), r"rougeL_recall is neither an object nor a list of rows"),
        (
            V1,
            drop(FORGET, "rougeL_recall", "4"),
            r"eval_log_forget.json: rougeL_recall has 5 rows, avg_gt_loss has 6: row 4 is missing",
        ),
        (
            V1,
            drop(FORGET, "avg_gt_loss", "4"),
            r"avg_paraphrased_loss has 6 rows, avg_gt_loss has 5: row 4 is only in the former",
        ),
        (V0, drop(FORGET, "rougeL_recall", 0), r"rougeL_recall has 5 rows, avg_gt_loss has 6: row 5 is missing"),
        (V0, drop(FORGET, "avg_gt_loss", 0), r"avg_paraphrased_loss has 6 rows, avg_gt_loss has 5"),
        (V1, put({}, RETAIN, "avg_gt_loss"), r"avg_gt_loss has no rows"),
        (V1, put(1.0, RETAIN, "avg_gt_loss", "first"), r"row key 'first' is not a row number"),
        (V1, put(None, RETAIN, "avg_gt_loss", "2"), r"eval_log.json: avg_gt_loss, row 2, is null, not a number"),
        (V1, put("big", RETAIN, "avg_gt_loss", "2"), r"avg_gt_loss, row 2, is 'big', not a number"),
        (V1, put(True, RETAIN, "avg_gt_loss", "2"), r"avg_gt_loss, row 2, is True, not a number"),
        (V1, put(-np.inf, RETAIN, "avg_gt_loss", "2"), r"avg_gt_loss, row 2, is -inf, outside -0.001 to inf"),
        (V0, put(-0.5, FORGET, "average_perturb_loss", 2, 1), r"average_perturb_loss, row 2, is -0.5, outside"),
        (V1, put(1.5, RETAIN, "rougeL_recall", "2"), r"rougeL_recall, row 2, is 1.5, outside 0 to 1"),
        (
            OU,
            put(np.nan, ROUGE, "value_by_index", "2", "rougeL_recall"),
            r"rougeL_recall, row 2, is nan, outside 0 to 1",
        ),
        (OU, put(-1, PROB, "value_by_index", "1", "avg_loss"), r"forget_Q_A_Prob: avg_loss, row 1, is -1, outside"),
        (
            V1,
            put([1.0, 2.0], RETAIN, "average_perturb_loss", "3"),
            r"average_perturb_loss, row 3, has 2 values, row 0 has 5",
        ),
        (V0, put([], RETAIN, "average_perturb_loss", 0), r"average_perturb_loss, row 0, has 0 values"),
        (V1, put("text", RETAIN, "generated_text", "3"), r"generated_text, row 3, is not a list of prompt"),
        (OU, drop("forget_Q_A_PARA_Prob"), r"key 'forget_Q_A_PARA_Prob' is missing \(did you mean 'forget_Q_A_PERT"),
        (OU, drop(ROUGE), r"key 'forget_Q_A_ROUGE' is missing"),
        (OU, drop(PROB, "value_by_index"), r"forget_Q_A_Prob has no object of rows 'value_by_index'"),
        (OU, put(3, PROB, "value_by_index", "0"), r"forget_Q_A_Prob has no object of rows"),
        (
            OU,
            drop(ROUGE, "value_by_index", "1"),
            r"forget_Q_A_ROUGE has 5 rows, forget_Q_A_Prob has 6: row 1 is missing",
        ),
        (OU, drop(PROB, "value_by_index", "1", "avg_loss"), r"forget_Q_A_Prob, row 1: key 'avg_loss' is missing"),
        (OU, drop(ROUGE, "value_by_index", "2", "generation"), r"forget_Q_A_ROUGE, row 2: key 'generation' is missing"),
        (OU, put(None, ROUGE, "value_by_index", "2", "ground_truth"), r"ground_truth, row 2, is null, not a text"),
        (OU, put(None, PROB, "value_by_index", "1", "avg_loss"), r"forget_Q_A_Prob: avg_loss, row 1, is null"),
        (OU, drop("mia_min_k", "forget", "value_by_index", "3"), r"mia_min_k has 5 rows, forget_Q_A_Prob has 6: row 3"),
    ],
)
def test_one_line_for_damage(write, layout, edit, line):
    path = write(layout, edit)
    with pytest.raises(DataError, match=line) as caught:
        read_log(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"{'a': 1}", "not JSON"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe", "cannot be read"),
        (lzma.compress(b"{}" * 999)[:-9], "cannot be read"),
        (b"[1]", "the top level is not an object"),
        (b'{"model_utility": 0.5, "forget_Q_A_Prob": 0.4}', r"this is a summary; give .* \(TOFU_EVAL.json\)"),
        (
            b'{"avg_gt_loss": {"0": 1.0}}',
            "not an evaluation log: its top keys are avg_gt_loss; expected 'eval_log.json'",
        ),
        (b"{}", "not an evaluation log: its top keys are none"),
    ],
)
def test_one_line_for_what_is_no_log(tmp_path, data, line):
    path = tmp_path / "log.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=line) as caught:
        read_log(path)
    assert "\n" not in str(caught.value)


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_log(tmp_path)


def test_integers_beyond_floats_are_infinite_losses(write):
    log = read_log(write(V1, put(10**400, RETAIN, "avg_gt_loss", "2")))
    assert log.of("retain").avg_loss[2] == np.inf


def test_null_scores_are_answers_without_labels(write, tmp_path):
    def edit(content):
        content["extraction_strength"]["value_by_index"]["2"]["score"] = None

    log = read_log(write(OU, edit))
    assert np.isnan(log.of("forget").extraction_strength[2])
    assert aggregate(log)["extraction_strength"] == 0.25  # left out
    content = strict_json(write_open_unlearning(log, tmp_path))
    assert content["extraction_strength"]["value_by_index"]["2"] == {"score": None}
    assert content["extraction_strength"]["agg_value"] == 0.25
