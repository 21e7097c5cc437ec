import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from shared.errors import ConfigError, RecordError
from shared.files import write_json
from shared.results import board, diff, readme
from shared.results.__main__ import main
from shared.results.cells import read_tables
from shared.results.report import draw

EXPR = 'cell("E1", "random10", "SalUn", "Avg. Gap") < cell("E1", "random10", "RL", "Avg. Gap")'
COST_KEYS = {"seconds", "peak_memory_mb", "commit", "date"}


def results_of(case):
    return case.root / "results"


# ---- board


def test_board_json_is_exactly_what_was_agreed(case, new_case):
    case.claims({"expr": EXPR, "level": {"default": "hard"}})
    case.run()
    mini = new_case(scale="mini")
    mini.spec["published_data"] = False
    mini.fail("random50", "GA", "killed")
    mini.run()
    board.run({"results": str(results_of(case)), "output": str(results_of(case))})
    content = json.loads((results_of(case) / "board.json").read_text())
    assert set(content) == {"papers"}
    full, other = content["papers"]
    assert set(full) == {"paper", "scale", "claims", "cells"} | COST_KEYS
    assert (full["paper"], full["scale"], other["scale"]) == ("salun", "full", "mini")
    assert full["claims"] == {
        "hard_held": 1, "hard_failed": 0, "reported_held": 0, "reported_failed": 0,
        "not_measured": 0,
    }  # fmt: skip
    # Retrain's Avg. Gap is 0 ± 0 and published as 0; every other mean is the published one up to
    # rounding.
    assert full["cells"]["measured"] == full["cells"]["published"] == 72
    assert full["cells"]["inside_spread"] > 60
    assert (other["cells"]["measured"], other["cells"]["missing"]) == (66, 6)
    # Digits beside CIFAR-10: no number of mini is "inside" a published spread.
    assert other["cells"]["inside_spread"] == 0
    assert (full["commit"], full["date"]) == ("0123456789abcdef", "2026-01-05T10:00:00+00:00")
    html = (results_of(case) / "board.html").read_text()
    assert 'href="salun/full/report.html"' in html
    assert "salun/mini/report.md" in (results_of(case) / "board.md").read_text()


def test_damaged_paper_keeps_the_board_alive(case, new_case):
    case.run()
    broken = new_case(paper="tofu")
    broken.run()
    (broken.folder / "tables.json").write_text("{")
    board.run({"results": str(results_of(case)), "output": str(results_of(case) / "board.json")})
    assert [p["paper"] for p in json.loads((results_of(case) / "board.json").read_text())["papers"]] == ["salun"]
    assert "tables.json: damaged" in (results_of(case) / "board.html").read_text()


def test_empty_board(tmp_path):
    board.run({"results": str(tmp_path), "output": str(tmp_path)})
    assert json.loads((tmp_path / "board.json").read_text()) == {"papers": []}


# ---- diff


@pytest.fixture
def two(case, tmp_path_factory):
    """The same run twice."""
    from .conftest import Case

    case.run()
    other = Case(tmp_path_factory.mktemp("b")).write_all()
    other.run()
    return case, other


def test_equal_runs_do_not_differ(two, capsys):
    a, b = two
    for path_a, path_b in (
        (results_of(a), results_of(b)),
        (a.folder, b.folder),
        (a.folder.parent, b.folder.parent),
        (a.folder / "tables.json", b.folder / "tables.csv"),
    ):
        assert main(["diff", str(path_a), str(path_b)]) == 0
        assert "0 of " in capsys.readouterr().out


def test_cell_that_moved_beyond_both_spreads(two, capsys, tmp_path):
    """UA of FT has spread 0.55 in both runs: +1.0 is inside 1.1, +1.2 is not."""
    a, b = two
    for shift, has_moved in ((1.0, False), (1.2, True)):
        b.write_record("random10", "FT", lambda metric, value, s=shift: value + s * (metric == "UA"))
        b.run()
        moved = {move.key[4:] for move in diff.difference(a.folder, b.folder).moved}
        assert (("FT", "UA") in moved) is has_moved
    page = tmp_path / "diff.html"
    assert main(["diff", str(a.folder), str(b.folder), "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"E1 / random10 / FT +\| UA \(%\) +\| +0.63 ± 0.55 \| +1.83 ± 0.55 \| +\+1.20", out)
    assert "Moved beyond their spread" in page.read_text()


def test_times_never_decide(two):
    a, b = two
    found = diff.difference(a.folder, b.folder)
    assert {move.key[5] for move in found.cells if move.is_cost} == {
        "RTE",
        "seconds",
        "peak_memory_mb",
    }


def test_one_seed_has_no_spread_so_any_change_is_a_move(two):
    from shared.results.records import Metric, Record, read_records, write_records

    a, b = two
    for case, value in ((a, 1.0), (b, 1.001)):
        record = read_records(case.record("random10", "FT"))[0]
        write_records(
            case.record("random10", "FT"),
            [Record(**{**vars(record), "metrics": [Metric("UA", value, "%")]})],
        )
        case.spec["experiments"]["E1"]["seeds"] = []
        case.run()
    moved = diff.difference(a.folder, b.folder).moved
    assert [move.key[4:] for move in moved] == [("FT", "UA"), ("FT", "gap_UA")]


def test_cells_on_one_side_are_listed_and_do_not_count(two, capsys):
    a, b = two
    b.fail("random50", "GA", "killed")
    b.run()
    assert main(["diff", str(results_of(a)), str(results_of(b)), "--paper", "salun"]) == 0
    out = capsys.readouterr().out
    assert "only in A: salun / full / E1 / random50 / GA / UA" in out or "only in A: E1 / random50 / GA / UA" in out


@pytest.mark.parametrize("bad", ["nowhere", "empty", "text"])
def test_bad_input_is_exit_code_2(two, tmp_path, capsys, bad):
    a, _ = two
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no table")
    assert main(["diff", str(a.folder), str(tmp_path / bad)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_unknown_paper_is_exit_code_2(two, capsys):
    a, b = two
    assert main(["diff", str(results_of(a)), str(results_of(b)), "--paper", "tofu"]) == 2
    assert "no measured cell of tofu" in capsys.readouterr().err


# ---- README


@pytest.fixture
def paper(case):
    """The paper's folder with a README and stored results."""
    case.claims({"expr": EXPR, "level": {"default": "hard"}})
    case.run()
    text = f"# SalUn\n\nBefore.\n\n{readme.BEGIN}\n{readme.END}\n\nAfter.\n"
    (case.paper_folder / "README.md").write_text(text)
    return case.paper_folder


def command(case, *more):
    return main(["readme", "salun", "--papers", str(case.paper_folder.parent), *more])


def test_readme_numbers_come_from_records(case, paper):
    assert command(case, "--check") == 1
    assert command(case, "--from", str(results_of(case))) == 0
    text = (paper / "README.md").read_text()
    assert text.startswith("# SalUn\n\nBefore.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert re.search(r"\| SalUn +\| +2\.85 ± 0\.43 \(2\.85\)", text)
    assert "✔ holds" in text
    assert "2026-01-05" in text
    assert command(case, "--check") == 0


def test_check_works_without_results_and_sees_a_stale_block(case, paper):
    import shutil

    command(case, "--from", str(results_of(case)))
    shutil.rmtree(results_of(case))
    assert command(case, "--check") == 0
    stored = paper / "results" / "full.json"
    stored.write_text(stored.read_text().replace('"holds"', '"fails"'))
    assert command(case, "--check") == 1
    assert command(case) == 0
    assert "✘ fails" in (paper / "README.md").read_text()


def test_check_against_records_sees_a_stale_summary(case, paper):
    command(case, "--from", str(results_of(case)))
    case.write_record("random10", "FT", lambda metric, value: value + 3.0)
    case.run()
    assert command(case, "--check") == 0
    assert command(case, "--check", "--from", str(results_of(case))) == 1


def test_a_figure_of_the_report_is_kept_beside_the_readme(case, paper):
    write_json(case.folder / "jobs" / "spec.json", case.spec)
    figures = draw(case.spec["figures"], read_tables(case.folder / "tables.json"), case.spec)
    title = figures[0].title
    before = Path.cwd()
    assert command(case, "--from", str(results_of(case)), "--picture", title) == 0
    assert Path.cwd() == before
    (picture,) = (paper / "results").glob("full-*.svg")
    text = picture.read_text()
    ElementTree.fromstring(text)
    assert "currentColor" not in text
    assert f"(results/{picture.name})" in (paper / "README.md").read_text()
    # what is listed is drawn again with new records, and seen when it is stale
    assert command(case, "--check", "--from", str(results_of(case))) == 0
    picture.write_text("<svg/>")
    assert command(case, "--check", "--from", str(results_of(case))) == 1
    assert command(case, "--from", str(results_of(case))) == 0
    assert picture.read_text() == text
    with pytest.raises(RecordError, match="no report has the figure 'none'"):
        readme.store(results_of(case), paper, ["none"])
    summary = paper / "results" / "full.json"
    summary.write_text(summary.read_text().replace(json.dumps(title), '"of old"'))
    with pytest.raises(RecordError, match=r"full\.json: lists the figure 'of old', which the report does not have"):
        readme.store(results_of(case), paper)


def test_recalled_numbers_and_other_data_stay_out_of_the_readme(case, paper):
    case.spec["published_data"] = False
    case.run()
    command(case, "--from", str(results_of(case)))
    assert "(2.85)" not in (paper / "README.md").read_text()
    summary = json.loads((paper / "results" / "full.json").read_text())
    assert summary["tables"][0]["rows"]["SalUn"]["Avg. Gap"]["published"] is None


def test_readme_mistakes_are_one_line(case, paper, capsys):
    (paper / "README.md").write_text("# no markers\n")
    with pytest.raises(ConfigError, match="needs the line <!-- results:begin -->"):
        readme.rendered(paper)
    assert command(case) == 2
    (paper / "README.md").unlink()
    assert command(case, "--check") == 2
    assert main(["readme", "nobody", "--papers", str(paper.parent)]) == 2
    with pytest.raises(RecordError, match=r"no scale with a tables\.json"):
        readme.store(case.root / "elsewhere", paper)
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())


def test_summary_command(case, capsys):
    case.claims({"expr": EXPR, "level": {"default": "hard"}})
    case.run()
    assert main(["summary", "salun", "full", "--results", str(results_of(case))]) == 0
    out = capsys.readouterr().out
    assert "GREEN" in out
    assert "✔ holds        hard     C1 a claim [5 of 5 seeds]" in out
    assert "report.html" in out
    case.fail("random10", "GA", "killed")
    case.run()
    assert main(["summary", "salun", "full", "--results", str(results_of(case))]) == 1
    assert "GA: failed" in capsys.readouterr().out
    assert main(["summary", "salun", "huge", "--results", str(results_of(case))]) == 2


def test_board_command(case, capsys):
    case.run()
    assert main(["board", "--results", str(results_of(case))]) == 0
    assert main(["board", "--results", str(case.root / "nowhere")]) == 2
    capsys.readouterr()


def test_the_summary_of_an_unknown_paper_names_the_nearest(capsys, monkeypatch):
    from shared.results import __main__ as command

    monkeypatch.setattr("sys.argv", ["results", "summary", "salum", "mini"])
    assert command.main() == 2
    assert "paper 'salum' does not exist (did you mean 'salun'?)" in capsys.readouterr().err
