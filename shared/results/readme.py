"""The measured results in a paper's README, generated from records and checkable in a clean clone.

`results/` is not in the repository, so the numbers that a README shows are kept beside it in a
compact, reviewable file `papers/<slug>/results/<scale>.json` (means, spreads, verdicts, device,
commit), copied from tables.json and claims.json by `store`. The README's block between the two
markers is a pure function of these files: `is_fresh` renders it again and compares, without any
record. A summary may list figures of the report by title: they are kept as SVG files beside it,
and shown below the claims.
"""

import re
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, RecordError
from shared.files import json_text, write_text
from shared.results import show
from shared.results.cells import MEASURED, Tables, read_result_file, read_tables
from shared.results.claims import ClaimResult, read_results
from shared.results.figure import Figure
from shared.results.jobs import read_job
from shared.results.markdown import GLYPHS, escape, table
from shared.results.report import draw
from shared.results.spec import parse_spec
from shared.results.verdict import judge

SCHEMA = 1
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def store(results: Path, paper: Path, pictures: Sequence[str] = ()) -> list[Path]:
    """Copy the compact summary of every scale under `results`/<slug>/ into `paper`/results/;
    returns the files.

    pictures: titles of figures that the README shows from now on. Raises RecordError if there is no
    table of this paper, or no such figure at any scale.
    """
    files = _files(results, paper, pictures)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def stale(results: Path, paper: Path) -> list[Path]:
    """Stored summaries and pictures that differ from what the results folder says."""
    return [
        path
        for path, text in _files(results, paper, ()).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def _files(results: Path, paper: Path, pictures: Sequence[str]) -> dict[Path, str]:
    """Contents of the summaries and of their pictures."""
    found: dict[Path, str] = {}
    missing = set(pictures)
    for path in sorted((results / paper.name).glob("*/tables.json")):
        tables, claims = read_tables(path), read_results(path.parent / "claims.json")
        summary, target = summary_of(tables, claims), paper / "results" / f"{tables.scale}.json"
        known = [entry["title"] for entry in _stored_pictures(target)]
        figures = _figures(path.parent, tables, {*known, *missing})
        drawn = {figure.title for figure in figures}
        if gone := [title for title in known if title not in drawn]:
            raise RecordError(
                f"{target}: lists the figure '{gone[0]}', which the report does not have; take it out there"
            )
        missing -= drawn
        entries = [_picture(tables.scale, figure) for figure in figures]
        found[target] = json_text({**summary, "pictures": entries} if entries else summary)
        for entry, figure in zip(entries, figures, strict=True):
            found[paper / "results" / entry["file"]] = standalone(figure)
    if not found:
        raise RecordError(f"{results / paper.name}: no scale with a tables.json; run the paper first")
    if missing:
        raise RecordError(f"{results / paper.name}: no report has the figure '{min(missing)}'")
    return found


def _stored_pictures(path: Path) -> list[dict[str, str]]:
    pictures: list[dict[str, str]] = read_result_file(path, SCHEMA).get("pictures", []) if path.is_file() else []
    return pictures


def _figures(folder: Path, tables: Tables, titles: set[str]) -> list[Figure]:
    """The figures of these titles, drawn from the records of a run in `folder`/../../.. ."""
    if not titles:
        return []
    spec = read_job(folder / "jobs" / "spec.json")
    with chdir(folder.resolve().parents[2]):  # where a job's paths are from
        drawn = draw(parse_spec(spec).figures, tables, spec)
    return [figure for figure in drawn if isinstance(figure, Figure) and figure.title in titles]


def _picture(scale: str, figure: Figure) -> dict[str, str]:
    name = re.sub(r"[^a-z0-9]+", "-", figure.title.lower()).strip("-")
    return {
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt,
        "file": f"{scale}-{name}.svg",
    }


def standalone(figure: Figure) -> str:
    """The figure as a file of its own, in a grey that can be read on a light and on a dark page."""
    return figure.svg.replace("currentColor", "#6e7781") + "\n"


def summary_of(tables: Tables, claims: list[ClaimResult]) -> dict[str, Any]:
    """The compact summary of one scale: what the README shows, no more."""
    verdict = judge(tables, claims)
    return {
        "schema": SCHEMA,
        "paper": tables.paper,
        "scale": tables.scale,
        "verdict": {"is_green": verdict.is_green, "line": verdict.line},
        **{key: tables.summary[key] for key in ("date", "commit", "dirty", "devices", "seeds", "seconds")},
        "peak_memory_mb": tables.summary["peak_memory_mb"],
        "claims": [_claim(claim) for claim in claims if claim.level],
        "tables": _tables(tables),
    }


def _claim(claim: ClaimResult) -> dict[str, Any]:
    names = ("id", "text", "where", "level", "status", "reason", "seeds_agree", "seeds_total")
    units = {cell["unit"] for cell in claim.cells}
    compared = ("left", "op", "right", "margin", "margin_std")
    return {
        **{name: getattr(claim, name) for name in names},
        "unit": next(iter(units)) if len(units) == 1 else "",
        "comparisons": [{name: item[name] for name in compared} for item in claim.comparisons],
    }


def _tables(tables: Tables) -> list[dict[str, Any]]:
    """One entry a measured setting: labels, metrics, and rows of [mean, std, n] (null where not
    measured).
    """
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in tables.cells:
        if not cell.listed or cell.status == "not run":
            continue
        place = f"{cell.experiment}/{cell.setting}"
        entry = entries.setdefault(
            (cell.experiment, cell.setting),
            {
                "experiment": cell.experiment,
                "title": tables.label("experiment", cell.experiment),
                "setting": tables.label("setting", place),
                "comparable": cell.comparable,
                "metrics": {},
                "rows": {},
            },
        )
        entry["metrics"][cell.metric] = cell.unit
        row = entry["rows"].setdefault(tables.label("row", f"{cell.experiment}/{cell.row}"), {})
        row[cell.metric] = {
            "mean": cell.mean,
            "std": cell.std,
            "n": cell.n,
            "status": cell.status,
            # A number that nobody has re-read in a document has no place in a README.
            "published": cell.published if cell.checked == "read" else None,
        }
    return list(entries.values())


def stored(paper: Path) -> list[dict[str, Any]]:
    """The stored summaries of a paper, mini first, then by name."""
    paths = sorted((paper / "results").glob("*.json"), key=lambda path: (path.stem != "mini", path.stem))
    return [{**read_result_file(path, SCHEMA), "file": path.name} for path in paths]


def block(paper: Path) -> str:
    """The README's generated block, markers included."""
    summaries = stored(paper)
    lines = [BEGIN]
    if not summaries:
        lines += ["Not measured yet.", ""]
    for summary in summaries:
        try:
            lines += _scale(summary)
        except (KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{paper / 'results' / summary['file']}: damaged ({error!r}); store it again") from None
    return "\n".join([*lines, END])


def _scale(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"**Scale `{summary['scale']}`**: {'green' if summary['verdict']['is_green'] else 'red'}, "
        f"{summary['verdict']['line']}. "
        f"{show.day(summary['date'])}, {', '.join(summary['devices'])}, "
        f"commit {show.commit(summary)}, {show.duration(summary['seconds'])}, "
        f"at most {show.memory(summary['peak_memory_mb'])}, seeds {show.seeds(summary['seeds'])}.",
        "",
    ]
    if summary["claims"]:
        rows = [_claim_row(claim) for claim in summary["claims"]]
        lines += [*table(["claim", "level", "verdict", "numbers", "margin", "seeds"], rows, 3), ""]
    for picture in summary.get("pictures", []):
        alt = escape(picture["alt"].replace("[", "(").replace("]", ")"))
        lines += [
            f"![{alt}](results/{picture['file']})",
            "",
            f"{escape(picture['title'])}. {escape(picture['caption'])}",
            "",
        ]
    # The claims are what a reader wants at a glance; a dozen tables would bury the rest of the page.
    lines += ["<details>", f"<summary>Tables of scale {summary['scale']}</summary>", ""]
    for entry in summary["tables"]:
        lines += _entry(entry)
    return [*lines, "</details>", ""]


def _claim_row(claim: dict[str, Any]) -> list[str]:
    unit = claim["unit"]
    numbers = [
        f"{show.number(c['left'], unit)} {show.comparison(c['op'])} {show.number(c['right'], unit)}"
        for c in claim["comparisons"]
    ]
    margins = [
        show.number(c["margin"], unit, sign=True)
        + (f" ± {show.number(c['margin_std'], unit)}" if c["margin_std"] is not None else "")
        for c in claim["comparisons"]
    ]
    seeds = f"{claim['seeds_agree']} of {claim['seeds_total']}" if claim["seeds_total"] else "—"
    verdict = f"{GLYPHS[claim['status']]} {claim['status']}"
    joined = [" and ".join(part) or claim["reason"] or "—" for part in (numbers, margins)]
    return [
        f"{claim['id']} {claim['text']}",
        claim["level"],
        verdict,
        joined[0],
        joined[1] if margins else "—",
        seeds,
    ]


def _entry(entry: dict[str, Any]) -> list[str]:
    metrics = entry["metrics"]
    header = ["method"] + [f"{name} ({unit})" if unit else name for name, unit in metrics.items()]
    rows = []
    for label, values in entry["rows"].items():
        rows.append([label] + [_number(values.get(name), metrics[name], entry["comparable"]) for name in metrics])
    has_published = any("(" in text for row in rows for text in row[1:])
    note = ", in parentheses the paper's number" if has_published else ""
    return [
        f"{escape(entry['experiment'])}, {escape(entry['setting'])}{note}:",
        "",
        *table(header, rows),
        "",
    ]


def _number(cell: dict[str, Any] | None, unit: str, is_comparable: bool) -> str:
    if cell is None:
        return "—"
    if cell["status"] != MEASURED:
        return str(cell["status"])
    text = show.spread(cell["mean"], cell["std"], unit)
    if is_comparable and cell["published"] is not None:
        return f"{text} ({show.number(cell['published'], unit)})"
    return text


def rendered(paper: Path) -> str:
    """The README with its block made anew. Raises ConfigError if it lacks the two markers."""
    readme = paper / "README.md"
    try:
        text = readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{readme}: no such file; write it with the lines {BEGIN} and {END}") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(f"{readme}: needs the line {BEGIN} once, and {END} once after it")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    return before + block(paper) + after


def update(paper: Path) -> bool:
    """Write the README's block anew; returns whether it changed."""
    text, readme = rendered(paper), paper / "README.md"
    if readme.read_text(encoding="utf-8") == text:
        return False
    write_text(readme, text)
    return True


def is_fresh(paper: Path) -> bool:
    """Whether the README shows what the stored summaries say."""
    expected = rendered(paper)
    return (paper / "README.md").read_text(encoding="utf-8") == expected
