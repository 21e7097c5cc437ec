"""The board: every paper at every scale in one line, from tables.json and claims.json alone."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from shared.errors import RecordError
from shared.files import write_json, write_text
from shared.results import show
from shared.results.cells import MEASURED, NOT_RUN, Tables, read_tables
from shared.results.claims import ClaimResult, count, read_results
from shared.results.markdown import table
from shared.results.verdict import judge


def run(spec: dict[str, Any]) -> None:
    """Write board.json, board.html and board.md into spec["output"], from the papers under
    spec["results"].

    Both are folders; `output` may also be the path of board.json. A paper whose files are damaged
    has a line that says so instead of numbers, in the pages only.
    """
    from shared.results.report import render

    output = Path(spec.get("output", "results"))
    folder = output.parent if output.suffix == ".json" else output
    papers, lines = read_board(Path(spec.get("results", folder)), folder)
    write_json(folder / "board.json", {"papers": papers})
    write_text(folder / "board.html", render("board.html.j2", lines=lines))
    write_text(folder / "board.md", _markdown(lines))


def read_board(results: Path, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(entries of board.json, lines of the pages), sorted by paper and scale. Links are relative to
    `folder`.
    """
    papers, lines = [], []
    for path in sorted(results.glob("*/*/tables.json")):
        paper, scale = path.parts[-3], path.parts[-2]
        line = {
            "paper": paper,
            "scale": scale,
            "report": _link(path.parent / "report.html", folder),
        }
        try:
            tables, claims = read_tables(path), read_results(path.parent / "claims.json")
        except RecordError as error:
            lines.append({**line, "problem": str(error)})
            continue
        papers.append(entry_of(tables, claims))
        lines.append({**line, "problem": "", **_line(tables, claims)})
    return papers, lines


def _link(report: Path, folder: Path) -> str:
    import os

    return quote(Path(os.path.relpath(report, folder)).as_posix()) if report.is_file() else ""


def entry_of(tables: Tables, claims: list[ClaimResult]) -> dict[str, Any]:
    """One entry of board.json.

    cells count the numbers of the paper's tables (a row times a listed metric): measured; missing
    (failed ones too); published (a published number stands beside); inside_spread (of those
    measured on the paper's own data).
    """
    listed = [cell for cell in tables.cells if cell.listed]
    return {
        "paper": tables.paper,
        "scale": tables.scale,
        "claims": count(claims),
        "cells": {
            "measured": sum(cell.status == MEASURED for cell in listed),
            "missing": sum(cell.status not in (MEASURED, NOT_RUN) for cell in listed),
            "published": sum(cell.published is not None for cell in listed),
            "inside_spread": sum(cell.inside is True and cell.comparable for cell in listed),
        },
        "seconds": tables.summary["seconds"],
        "peak_memory_mb": tables.summary["peak_memory_mb"],
        "commit": tables.summary["commit"],
        "date": tables.summary["date"],
    }


def _line(tables: Tables, claims: list[ClaimResult]) -> dict[str, Any]:
    """One line of the pages: texts."""
    entry = entry_of(tables, claims)
    counts, cells = entry["claims"], entry["cells"]
    compared = [c for c in tables.cells if c.listed and c.comparable and c.inside is not None]
    hard = sum(claim.level == "hard" for claim in claims)
    reported = sum(claim.level == "reported" for claim in claims)
    return {
        "title": tables.title,
        "is_green": judge(tables, claims).is_green,
        "hard": f"{counts['hard_held']} / {hard}" if hard else "—",
        "reported": f"{counts['reported_held']} / {reported}" if reported else "—",
        "measured": f"{cells['measured']} / {cells['measured'] + cells['missing']}",
        "inside": f"{cells['inside_spread']} / {len(compared)}" if compared else "—",
        "time": show.duration(entry["seconds"]),
        "memory": show.memory(entry["peak_memory_mb"]),
        "commit": show.commit(tables.summary),
        "date": entry["date"][:10] or "—",
    }


HEADER = [
    "paper",
    "scale",
    "verdict",
    "hard claims",
    "reported claims",
    "numbers",
    "inside spread",
    "time",
    "memory",
    "commit",
    "date",
    "report",
]


def _markdown(lines: list[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        start = [line["paper"], line["scale"]]
        if line["problem"]:
            rows.append([*start, "damaged", *["—"] * 8, line["problem"]])
            continue
        keys = ("hard", "reported", "measured", "inside", "time", "memory", "commit", "date")
        verdict = "✔ green" if line["is_green"] else "✘ red"
        rows.append([*start, verdict, *(line[key] for key in keys), line["report"].replace(".html", ".md")])
    text = table(HEADER, rows, 3) if rows else ["No results yet."]
    return "\n".join(["# Board", "", *text]) + "\n"
