"""Row jobs of the room as the engine runs them, with fewer epochs: mini's pieces, a loss of one's own, bad input."""

import json
import re
import sys

import pytest

import shared.options
from papers import __path__ as papers_path
from shared.config import PaperConfig, merge, raw_config
from shared.paths import ROOT
from shared.planning import plan as planning
from shared.results.records import read_records
from shared.run import main

SHORT = {
    "seeds": {"test": [1]},
    "tasks": {
        "tiny_authors": {"model": {"world_recipe": {"epochs": 2, "warmup": 0}}, "train": {"epochs": 3, "warmup": 0}}
    },
    "experiments": {"E1": {"seeds": [1]}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder whose stages the tests of this file share."""
    return tmp_path_factory.mktemp("tofu")


@pytest.fixture
def planned(folder, monkeypatch):
    """Plans mini with changes laid over it, and writes its job files."""
    monkeypatch.chdir(folder)
    for name in ("REPLICATE_DATA", "REPLICATE_MANIFESTS", "DATA_MIRROR"):
        monkeypatch.delenv(name, raising=False)

    def make(changes=None, scale="mini"):
        values = merge(merge(raw_config("tofu", scale), SHORT), changes or {})
        monkeypatch.setattr(planning, "load_config", lambda slug, scale: PaperConfig(**values))
        plan = planning.Plan("tofu", scale)
        plan.write()
        return plan

    return make


def run(plan, experiment, row, setting="llama2_forget10"):
    """Exit code of the row's job, and its record if it has one."""
    job = next(c for c in plan.cells if (c.experiment, c.setting, c.row) == (experiment, setting, row)).jobs[0]
    code = main(["row", str(job.path), "--threads", "1", "--gpus", "0"])
    return code, read_records(job.output)[0] if code == 0 else None


def options(experiment, row, **values):
    return {"experiments": {experiment: {"rows": {row: {"options": values}}}}}


def test_rows_leave_records_that_figures_can_draw_and_logs_that_others_can_read(planned, folder, capsys):
    from papers.tofu.aggregate import main as aggregate
    from shared.text.figures import figures

    plan = planned(options("E2", "PO", epochs=2))
    for row in ("Finetuned", "Retain"):
        assert run(plan, "E2", row)[0] == 0
    code, record = run(plan, "E2", "PO")
    assert code == 0
    assert [point["epoch"] for point in record.extras["trajectory"]] == [2]
    assert len(figures(None, plan.spec)) == 4
    capsys.readouterr()
    # a row that stands in two tables runs once, and its log is where it ran
    place = folder / "results" / "tofu" / "mini" / "logs"
    rows = (("E2", "PO", "epoch02"), ("E1", "Retain", "epoch00"))
    logs = [place / e / "llama2_forget10" / row / "s1" / epoch / "TOFU_EVAL.json" for e, row, epoch in rows]
    assert aggregate([str(logs[0]), "--retain", str(logs[1]), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for name in ("model_utility", "forget_quality", "truth_ratio_forget", "probability_real_authors"):
        assert printed[name] == pytest.approx(record.metric(name), rel=1e-9)


def test_gradient_ascent_at_a_huge_rate_is_a_result_and_no_crash(planned):
    code, record = run(planned(options("E2", "GA", lr=1e6, warmup=0, epochs=2)), "E2", "GA")
    assert code == 0
    assert record.metric("model_utility") == 0
    assert record.metric("forget_quality") < 0.05
    assert record.metric("truth_ratio_forget") <= 1
    assert all(abs(value) <= 1e3 for value in record.extras["log_truth_ratio"])


def test_a_model_without_world_knowledge_is_judged_on_two_question_sets(planned):
    """E6's task on the generated authors: the retain log has no real authors and no world facts either."""
    tiny = {"data": {"name": "tiny_authors", "rows_per_author": 8, "refusals": "tiny_authors"}}
    tiny |= {"model": {"tiny": {"width": 32, "context": 24}}, "train": {"epochs": 2}, "max_length": 24}
    tiny |= {"evaluate": {"max_length": 24, "max_total": 24}}
    plan = planned({"tasks": {"tiny_real": tiny}, **options("E6", "GA-1e-3", epochs=1, batch=8)}, "full")
    code, record = run(plan, "E6", "GA-1e-3", "forget10")
    assert code == 0
    assert record.metric("probability_real_authors") is None
    assert 0 <= record.metric("model_utility") <= 1
    assert 0 < record.metric("forget_quality") <= 1


def readme_block(language):
    text = (ROOT / "papers" / "tofu" / "README.md").read_text()
    section = text[text.index("## Add a loss") :]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The file that the README shows, as papers/mine/method.py of a checkout that is this one otherwise."""
    for place in (ROOT / "shared", *(ROOT / "papers").glob("[a-z]*/")):
        link = tmp_path / place.relative_to(ROOT)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(place)
    (tmp_path / "papers" / "mine").mkdir()
    (tmp_path / "papers" / "mine" / "method.py").write_text(readme_block("python"))
    monkeypatch.setattr(shared.options, "_root", lambda: tmp_path)
    papers_path.append(str(tmp_path / "papers"))
    yield
    papers_path.remove(str(tmp_path / "papers"))
    for name in [name for name in sys.modules if name.startswith("papers.mine")]:
        del sys.modules[name]


def test_a_loss_is_one_file_and_one_row_as_the_readme_shows(mine, planned):
    from shared.config import _Loader, yaml

    row = yaml.load(readme_block("yaml"), Loader=_Loader)
    row["Fade"]["options"]["epochs"] = 2
    code, record = run(planned({"experiments": {"E2": {"rows": row}}}), "E2", "Fade")
    assert code == 0
    assert record.cost.steps == 8
    assert 0 < record.metric("model_utility") < 1


def test_an_unknown_option_of_a_loss_is_one_line(mine, planned):
    row = {"Fade": {"method": "papers.mine.method:fade", "options": {"cieling": 3.0}}}
    with pytest.raises(
        shared.options.ConfigError, match=r"E2: row 'Fade': cieling: unknown key \(did you mean 'ceiling'"
    ):
        planned({"experiments": {"E2": {"rows": row}}})


def one_line(capsys):
    printed = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in printed if line.startswith("error: ")]
    assert len(lines) == 1, printed
    assert "Traceback" not in "".join(printed)
    return lines[0]


def test_a_gated_model_without_token_says_what_to_accept(planned, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    plan = planned(
        {
            "tasks": {
                "ou_llama3_1b": {"data": {"name": "tiny_authors", "rows_per_author": 8, "refusals": "tiny_authors"}}
            }
        },
        "full",
    )
    assert run(plan, "E4", "GA", "llama3_1b_forget10")[0] == 2
    line = one_line(capsys)
    assert "llama32_1b_instruct" in line
    assert "gated, and the variable HF_TOKEN holds no token" in line
    assert "accept the Llama 3.2 Community License" in line


def test_a_tokenizer_without_eos_is_one_line(planned, capsys):
    plan = planned(options("E2", "KL", epochs=1))
    assert run(plan, "E2", "Finetuned")[0] == 0
    cell = next(c for c in plan.cells if (c.experiment, c.row) == ("E2", "KL"))
    base = cell.jobs[0].content["stages"]["1"]["base"]["output"].replace("record.json", "model/tokenizer_config.json")
    with open(base) as stream:
        intact = stream.read()
    try:
        with open(base, "w") as stream:
            json.dump({key: value for key, value in json.loads(intact).items() if key != "eos_token"}, stream)
        assert run(plan, "E2", "KL")[0] == 2
    finally:
        with open(base, "w") as stream:
            stream.write(intact)
    assert "has no EOS token, so no answer can end" in one_line(capsys)
    error = json.loads(cell.jobs[0].output.with_suffix(".error.json").read_text())
    assert "no EOS token" in error["message"]


def test_a_window_that_is_too_small_names_the_row(planned, capsys):
    plan = planned({"tasks": {"tiny_authors": {"evaluate": {"max_length": 12, "max_total": 12}}}})
    assert run(plan, "E2", "Finetuned")[0] == 2
    assert re.search(r"row \d+: .*the window", one_line(capsys))
