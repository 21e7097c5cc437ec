import importlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from shared.errors import ConfigError, UserError
from shared.results import claims, report, show, tables
from shared.results.figure import Figure, Listing, drawing, plain, svg_of
from shared.results.view import best_rows

from .conftest import METRICS, Case

HOSTILE = '<script>alert("x")</script> $a_b$ | `c` & <b>'
CHROMIUM = Path("/usr/bin/chromium")


def pages(case, *, draws=False):
    case.run(draws=draws)
    return (case.folder / "report.html").read_text(), (case.folder / "report.md").read_text()


def full_house(case):
    """Claims that hold, fail and are not measured; a failed row; a setting that is not run; a
    recalled number.
    """
    gap = {row: f'cell("E1", "random10", "{row}", "Avg. Gap")' for row in ("SalUn", "RL")}
    case.claims(
        {"expr": f"{gap['SalUn']} < {gap['RL']}", "level": {"default": "hard"}},
        {"expr": f"{gap['RL']} < 1"},
        {"expr": 'cell("E1", "random50", "GA", "UA") < 1'},
        {"expr": "1 < 2", "level": {"other": "hard"}},
    )
    case.fail("random50", "GA", "CUDA out of memory")
    settings = case.spec["experiments"]["E1"]["settings"]
    settings["cifar100"] = {"label": "CIFAR-100", "enabled": False, "why_not": "needs the images"}
    return case


class Outline(HTMLParser):
    """Tags, ids and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]


def test_report_says_everything_in_one_file(case):
    html, text = pages(full_house(case), draws=True)
    for page in (html, text):
        for word in (
            "CUDA out of memory", "needs the images", "recalled", "2.85 ± 0.43",
            "Original model: last epoch", "0123456789", "5 of 5 seeds agree", "margin",
            "not evaluated at this scale", "2026-01-01 to 2026-01-05", "versions.torch",
        ):  # fmt: skip
            assert word in page, word
    outline = Outline(html)
    assert outline.tags.count("table") >= 2
    assert outline.tags.count("svg") == outline.tags.count("figure") == 4
    assert "script" not in outline.tags
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_same_records_give_the_same_bytes(case):
    first = pages(full_house(case), draws=True)
    shutil.rmtree(case.folder / "tables")
    assert pages(case, draws=True) == first


def test_everything_is_escaped(case):
    """A row, a reason, a setting, an option or a claim may hold any text."""
    experiment = case.spec["experiments"]["E1"]
    experiment["rows"]["SalUn"].update(label=HOSTILE, options={"x": HOSTILE})
    experiment["rows"]["GA"]["label"] = "gradient$ascent"
    experiment["settings"]["random10"]["label"] = HOSTILE
    experiment.update(title=HOSTILE, note=HOSTILE)
    case.spec.update(title=HOSTILE, deviations=[HOSTILE])
    case.claims({"expr": "1 < 2", "text": HOSTILE, "where": HOSTILE})
    case.fail("random50", "FT", HOSTILE)
    html, text = pages(case, draws=True)
    outline = Outline(html)
    assert "script" not in outline.tags
    assert "b" in outline.tags
    assert "<script" not in html.lower()
    assert "&lt;script&gt;" in html
    assert "<script" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (6, 8), line


def test_other_data_is_said_and_not_coloured(new_case):
    case = new_case(scale="mini")
    case.spec["published_data"] = False
    for setting in case.spec["experiments"]["E1"]["settings"].values():
        setting["label"] = "digits"
    html, text = pages(case, draws=True)
    sentence = "The published numbers are of other data (CIFAR-10 ResNet-18 random 10%), ours of digits"
    assert sentence in html
    assert sentence in text
    body = html[html.index("</style>") :]
    assert 'class="delta' not in body
    assert "published (other data)" in html


def test_inside_and_outside_have_colour_and_glyph(case):
    case.write_record("random10", "FT", lambda metric, value: value - 2.0 * (metric == "TA"))
    html, text = pages(case)
    assert re.search(r'class="delta bad"[^>]*>▼ −2\.00', html)
    assert re.search(r'class="delta good"[^>]*>● 0\.00', html)
    assert "−2.00 ▼" in text


def test_empty_run_has_a_report(tmp_path):
    case = Case(tmp_path)
    html, text = pages(case)
    assert "0 of 72 numbers measured" in html
    assert "no record" in text
    assert "<svg" not in html


def test_best_row_is_closest_to_the_reference_and_never_the_reference(case):
    built = tables.build(case.spec)
    cells = [c for c in built.cells if c.setting == "random10" and c.listed]
    best = best_rows(built, cells)
    assert best["MIA"] == best["Avg. Gap"] == {"SalUn"}
    assert best["UA"] == {"RL"}  # 2.37 away, SalUn 2.39
    assert best["RTE"] == {"GA"}


def test_unknown_figure_function_is_one_line(case):
    case.spec["figures"] = ["papers.salun.nothing:figures"]
    tables.run(case.spec)
    claims.run(case.spec)
    with pytest.raises(ConfigError, match=r"figures 'papers\.salun\.nothing:figures'"):
        report.run(case.spec)


# ---- figures


def test_gap_bars_add_up_to_the_average(case):
    figures = importlib.import_module("shared.classification.figures")
    built = tables.build(case.spec)
    drawn = figures.figures(tables.frame(built.cells), case.spec)
    assert [figure.title.split(":")[0] for figure in drawn] == [
        "Gap to Retrain",
        "Forgetting and membership",
    ] * 2
    assert "SalUn 1.15, BS 2.67" in drawn[0].alt
    assert "Hollow points are the published numbers" in drawn[1].caption
    cells = built.by_key()
    for row in ("SalUn", "RL"):
        gaps = [cells["E1", "random10", row, f"gap_{m}"].mean for m in METRICS]
        assert sum(gaps) / 4 == pytest.approx(cells["E1", "random10", row, "Avg. Gap"].mean)


def test_figures_survive_missing_rows_and_one_seed(case):
    figures = importlib.import_module("shared.classification.figures")
    case.fail("random50", "Retrain", "killed")
    for row in ("FT", "RL", "GA", "BS"):
        case.fail("random10", row, "killed")
    assert figures.figures(tables.frame(tables.build(case.spec).cells), case.spec) == []


def test_svg_follows_the_page_and_repeats_itself():
    def draw():
        with drawing(3, 2) as (canvas, ax):
            ax.plot([0, 1], label=plain("cost $5 <b>"))
            ax.legend()
            return svg_of(canvas, "a figure")

    svg = draw()
    assert svg == draw()
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "cost $5 &lt;b&gt;" in svg
    assert "<metadata" not in svg
    assert all(name.startswith("a-figure-") for name in re.findall(r'\bid="([^"]*)"', svg))
    used = set(re.findall(r"url\(#([^)]*)\)", svg)) | set(re.findall(r'href="#([^"]*)"', svg))
    assert used
    assert used <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_figure_refuses_what_is_no_plain_svg():
    for svg in ("<div></div>", "<svg><script>1</script></svg>", "<svg><foreignObject/></svg>"):
        with pytest.raises(UserError, match="not a plain <svg>"):
            Figure("t", "c", svg, "a")


# ---- listings


def with_listing(tables, spec):
    """A figure function of a paper."""
    rows = [[HOSTILE, "before", "a | b"], ["", "after", HOSTILE]]
    return [Listing(f"Answers {HOSTILE}", HOSTILE, ["Question", "Model", "Answer"], rows)]


def test_listing_is_a_table_of_escaped_texts(case, monkeypatch):
    monkeypatch.setattr(report, "import_path", lambda path: with_listing)
    html, text = pages(case, draws=True)
    outline = Outline(html)
    assert "script" not in outline.tags
    assert "#listings" in outline.links
    assert html.count('class="continued"') == 1
    section = html[html.index('id="listings"') :]
    assert section.index("before") < section.index("after")
    assert section.count("&lt;script&gt;") >= 4
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|") and ("before" in line or "after" in line)]
    assert len(rows) == 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_without_a_listing_the_page_has_no_such_section(case):
    html, text = pages(case)
    assert "listings" not in html[html.index("</style>") :]
    assert "## Texts" not in text


def test_listing_of_uneven_rows_is_refused():
    with pytest.raises(UserError, match="listing 't': row 2 has 1 of 2 fields"):
        Listing("t", "c", ["a", "b"], [["1", "2"], ["3"]])


# ---- numbers


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.853, "%", "2.85"), (-0.001, "%", "0.00"), (12345.0, "steps", "12\u2009345"),
        (0.4567, "", "0.457"),
        (4.35e-25, "p-value", "4.35e−25"), (-1.5, "dB", "−1.50"), (None, "%", "—"),
        (123.456, "", "123.46"),
    ],
)  # fmt: skip
def test_numbers(value, unit, text):
    assert show.number(value, unit) == text


def test_spreads_durations_and_seeds():
    assert show.spread(2.853, 0.4321, "%") == "2.85 ± 0.43"
    assert show.spread(2.853, None, "%") == "2.85"
    assert show.spread(2.853, 1e-15, "%") == "2.85 ± 0.00"
    assert show.spread(2.853, 0.0004, "%") == "2.85 ± 4e−04"
    assert show.number(0.5, "%", sign=True) == "+0.50"
    assert [show.duration(s) for s in (4.24, 59.6, 180, 185, 8040)] == [
        "4.2 s", "1 min", "3 min", "3 min 5 s", "2 h 14 min",
    ]  # fmt: skip
    assert show.seeds([1, 2, 3, 4]) == "1–4"
    assert show.seeds([1, 3]) == "1, 3"
    assert show.day("2026-01-31T12:05:09+00:00") == "2026-01-31 12:05 UTC"


# ---- the browser


@pytest.mark.browser
def test_pages_open_without_errors(case, new_case):
    """Headless Chromium, wide and narrow, light and dark: tables and figures are there, nothing
    overflows.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    from shared.results import board, diff

    full_house(case).run(draws=True)
    other = new_case(scale="mini")
    other.write_record("random10", "FT", lambda metric, value: value + 9.0)
    other.run()
    results = case.root / "results"
    board.run({"results": str(results), "output": str(results)})
    (results / "diff.html").write_text(diff.html(diff.difference(case.folder, other.folder), "A", "B"))
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=options)
        for path in (case.folder / "report.html", results / "board.html", results / "diff.html"):
            for width, scheme in ((1200, "light"), (390, "dark")):
                page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                problems = []
                page.on("console", lambda message, problems=problems: problems.append(message.text))
                page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
                page.on("request", lambda request, problems=problems: problems.append(request.url)
                        if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
                page.goto(path.as_uri())
                assert page.locator("table:visible").count() > 0
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                if path.name == "report.html":
                    boxes = [svg.bounding_box() for svg in page.locator("figure svg").all()]
                    assert len(boxes) == 4
                    assert all(box and box["width"] > 200 and box["height"] > 60 for box in boxes)
                assert problems == []
                page.close()
        browser.close()
