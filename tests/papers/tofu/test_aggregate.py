"""The command line, and the authors' own Phi-1.5 logs: recomputed numbers to 1e-6, self-consistency of the logs."""

import json
import lzma

import numpy as np
import pytest

from papers.tofu.aggregate import main
from shared.text.aggregate import aggregate
from shared.text.logs.legacy import write_legacy
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.logs.read import read_log

LAYOUTS = ("legacy v1", "legacy v0", "OpenUnlearning")
METRICS = ("probability", "rouge_l_recall", "truth_ratio")
COLUMNS = [f"{metric}_{name}" for name in ("retain", "real_authors", "world_facts", "forget") for metric in METRICS]
# Computed from the logs by the paper's formulas, independently of this code; six decimals.
PHI = {
    "full": """0.926088 0.929253 0.482683  0.377360 0.415667 0.456009  0.408998 0.777350 0.492337
               0.928239 0.924861 0.483356""",
    "retain90": """0.923114 0.920043 0.484739  0.384187 0.475333 0.463836  0.408088 0.755698 0.488263
                   0.134907 0.427867 0.628842""",
}
UTILITY = {
    ("full", "geometric"): 0.522074,
    ("full", "arithmetic"): 0.503353,
    ("retain90", "geometric"): 0.531991,
    ("retain90", "arithmetic"): 0.513001,
}


@pytest.fixture
def phi(data_mirror):
    return {name: data_mirror / "tofu_eval_logs" / f"phi_{name}_wd0.01.json.xz" for name in PHI}


def asked(capsys, *arguments):
    """Exit code 0, and what --json printed."""
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", PHI)
def test_the_authors_logs_give_the_known_numbers(phi, capsys, name):
    found = asked(capsys, phi[name])
    # Six decimals: half a unit of the last one beside 1e-6 relative.
    assert [found[column] for column in COLUMNS] == pytest.approx(
        [float(x) for x in PHI[name].split()], rel=1e-6, abs=5e-7
    )
    for kind in ("geometric", "arithmetic"):
        utility = asked(capsys, phi[name], "--truth-ratio", kind)["model_utility"]
        assert utility == pytest.approx(UTILITY[name, kind], rel=1e-6, abs=5e-7)
    assert found["forget_quality"] is None


def test_forget_quality_of_the_authors_logs(phi, capsys):
    found = asked(capsys, phi["full"], "--retain", phi["retain90"])
    assert found["forget_quality"] == pytest.approx(2.194274e-16, rel=1e-6)
    assert found["log10_forget_quality"] == pytest.approx(np.log10(2.194274e-16), abs=1e-6)
    assert found["ks_statistic"] == pytest.approx(0.346667, abs=5e-7)
    arithmetic = asked(capsys, phi["full"], "--retain", phi["retain90"], "--truth-ratio", "arithmetic")
    assert arithmetic["forget_quality"] == pytest.approx(2.43e-17, rel=1e-3)
    assert asked(capsys, phi["full"], "--retain", phi["full"])["forget_quality"] == 1
    assert asked(capsys, phi["full"], "--retain", phi["retain90"], "--rows", 300) == found
    assert asked(capsys, phi["full"], "--retain", phi["retain90"], "--rows", 40)["forget_quality"] > 1e-6


@pytest.mark.parametrize("name", PHI)
def test_the_authors_logs_are_consistent_with_themselves(phi, name):
    content = json.loads(lzma.decompress(phi[name].read_bytes()))
    assert [len(metrics["avg_gt_loss"]) for metrics in content.values()] == [300, 100, 117, 300]
    for key, metrics in content.items():
        column = {
            metric: np.array(list(rows.values())) for metric, rows in metrics.items() if metric != "generated_text"
        }
        np.testing.assert_allclose(column["gt_loss"], column["avg_gt_loss"] * column["num_token_gt"], rtol=1e-5)
        ratio = np.exp(column["avg_paraphrased_loss"] - column["average_perturb_loss"].mean(1))
        np.testing.assert_allclose(column["truth_ratio"], ratio, rtol=1e-6)
        if "real" in key:  # no paraphrase: measured twice, with bfloat16 batching noise
            assert np.abs(column["avg_paraphrased_loss"] - column["avg_gt_loss"]).max() <= 0.05
            true, wrong = np.exp(-column["avg_gt_loss"]), np.exp(-column["average_perturb_loss"])
            loss = -np.log(true / (true + wrong.sum(1)))
            np.testing.assert_allclose(column["normalized_gt_loss"], loss, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PHI)
def test_the_authors_logs_survive_both_layouts(phi, tmp_path, name):
    log = read_log(phi[name])
    write_legacy(log, tmp_path / "legacy.json")
    expected = aggregate(log, log)
    assert aggregate(read_log(tmp_path / "legacy.json"), log) == expected
    assert aggregate(read_log(write_open_unlearning(log, tmp_path)), log) == expected


def test_written_legacy_logs_equal_the_authors(phi, tmp_path):
    write_legacy(read_log(phi["full"]), tmp_path / "legacy.json")
    ours = json.loads((tmp_path / "legacy.json").read_text())
    theirs = json.loads(lzma.decompress(phi["full"].read_bytes()))
    for key, metrics in theirs.items():
        assert ours[key].keys() == metrics.keys()
        for metric, rows in metrics.items():
            if metric == "generated_text":
                assert ours[key][metric] == rows
            else:
                values = [np.array(list(side[metric].values()), float) for side in (ours[key], metrics)]
                np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


@pytest.fixture
def write(tmp_path, layouts, draw):
    def write(layout, seed=0, name="log.json"):
        path = tmp_path / name
        path.write_text(json.dumps(layouts[layout](draw(seed))))
        return path

    return write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_table(write, capsys, layout):
    path = write(layout)
    values = aggregate(read_log(path))
    assert main([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "Forget quality      not computed" in shown
    for name in ("model_utility", "probability_retain", "truth_ratio_world_facts", "rouge_l_recall_forget"):
        assert f"{values[name]:.8f}" in shown
    assert main([str(path), "--retain", str(write("legacy v0", 1, "retain.json"))]) == 0
    found = aggregate(read_log(path), read_log(path.with_name("retain.json")))
    assert (
        f"p = {found['forget_quality']:.7e}, log10 p = {found['log10_forget_quality']:.6f}" in capsys.readouterr().out
    )


def test_extra_metrics_of_open_unlearning_are_shown(write, capsys):
    assert main([str(write("OpenUnlearning"))]) == 0
    shown = capsys.readouterr().out
    assert "1e-10 in denominators" in shown
    assert "mia_min_k           1.00000000" in shown


def test_logs_of_fewer_sets(write, tmp_path, capsys):
    content = json.loads(write("legacy v1").read_text())
    (tmp_path / "few.json").write_text(json.dumps({k: content[k] for k in ("eval_log.json", "eval_log_forget.json")}))
    assert main([str(tmp_path / "few.json")]) == 2
    assert "top key 'eval_real_author_wo_options.json' is missing" in capsys.readouterr().err
    found = asked(capsys, tmp_path / "few.json", "--sets", "retain")
    assert found["model_utility"] == aggregate(read_log(write("legacy v1")), utility_sets=["retain"])["model_utility"]
    assert main([str(tmp_path / "few.json"), "--sets", "forget"]) == 2
    assert "model utility needs one of" in capsys.readouterr().err


def test_retain_log_of_the_forget_set_alone(write, tmp_path, capsys):
    content = json.loads(write("legacy v1").read_text())
    (tmp_path / "forget.json").write_text(json.dumps({"eval_log_forget.json": content["eval_log_forget.json"]}))
    assert asked(capsys, write("OpenUnlearning"), "--retain", tmp_path / "forget.json")["forget_quality"] == 1


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (None, [], "no such file"),
        ("{", [], "not JSON"),
        ("{}", [], "not an evaluation log"),
        ('{"eval_log.json": {}}', [], "key 'avg_gt_loss' is missing"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_two(tmp_path, capsys, content, arguments, line):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    assert main([str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert line in error
    assert error.count("\n") == 1


def test_logs_of_different_questions(write, tmp_path, capsys):
    content = json.loads(write("legacy v1", 1, "retain.json").read_text())
    content["eval_log_forget.json"]["generated_text"]["3"][2] = "something else"
    (tmp_path / "retain.json").write_text(json.dumps(content))
    assert main([str(write("legacy v1")), "--retain", str(tmp_path / "retain.json")]) == 2
    assert "the true answers of row 3 differ" in capsys.readouterr().err
    assert main([str(write("legacy v1")), "--rows", "0"]) == 2
    assert "the first 0 rows are none" in capsys.readouterr().err
