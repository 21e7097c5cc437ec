"""The report as Markdown: aligned tables that read well in a terminal, on a code host and in an
editor.
"""

import re
import unicodedata

from shared.results.view import CellView, ExperimentView, Page, TableView

GLYPHS = {"holds": "✔", "fails": "✘", "not measured": "○"}


def escape(text: str) -> str:
    """Text that neither starts HTML nor a table cell, emphasis, link or code."""
    for char in "\\`*[]|":
        text = text.replace(char, "\\" + char)
    # "a < b" is no HTML; escaping it would make a terminal show "&lt;".
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=[#A-Za-z])", "&amp;", text))
    return " ".join(text.split())


def table(header: list[str], rows: list[list[str]], num_left: int = 1) -> list[str]:
    """A Markdown table, the first `num_left` columns to the left. Cells are escaped."""
    cells = [[escape(cell) for cell in row] for row in [header, *rows]]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(header))]

    def line(row: list[str]) -> str:
        padded = [
            cell + " " * (w - _width(cell)) if i < num_left else " " * (w - _width(cell)) + cell
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * w if i < num_left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(cells[0]), f"| {' | '.join(rules)} |", *(line(row) for row in cells[1:])]


def _width(text: str) -> int:
    """Columns a text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def render_markdown(page: Page) -> str:
    """report.md, ending in a newline."""
    lines = [
        f"# {escape(page.title)}",
        "",
        f"**{'GREEN' if page.verdict.is_green else 'RED'}**: {escape(page.verdict.line)}.",
        "",
        *[f"- red because: {escape(reason)}" for reason in page.verdict.shown],
        *([""] if page.verdict.reasons else []),
        *[f"- {name}: {escape(value)}" for name, value in page.facts],
        "",
        "## Claims",
        "",
        *_claims(page),
        "## Tables",
        "",
        _legend(page),
        "",
    ]
    for experiment in page.experiments:
        lines += _experiment(experiment)
    if page.figures:
        lines += ["## Figures", "", "They are in report.html; here is what they show.", ""]
        for figure in page.figures:
            lines += [f"- **{escape(figure.title)}.** {escape(figure.caption)} {escape(figure.alt)}"]
        lines.append("")
    lines += ["## Texts", ""] if page.listings else []
    for listing in page.listings:
        lines += [f"### {escape(listing.title)}", "", escape(listing.caption), ""]
        lines += [*table(listing.columns, listing.rows, len(listing.columns)), ""]
    lines += ["## Deviations and switches", ""]
    lines += [f"- {escape(text)}" for text in page.deviations] or ["None declared."]
    lines += ["", "## Cost", "", escape(page.total_cost), ""]
    if page.costs:
        header = ["row", "setting", "s per seed", "steps", "peak memory"]
        keys = ("row", "place", "seconds", "steps", "peak_memory_mb")
        lines += [*table(header, [[c.get(key, "—") for key in keys] for c in page.costs], 2), ""]
    lines += ["## Provenance", ""]
    lines += [f"- {escape(key)}: {escape(value)}" for key, value in page.provenance]
    lines += [f"- published: {escape(s)} ({mark}, {n} numbers)" for s, mark, n in page.sources]
    return "\n".join(lines).rstrip() + "\n"


def _legend(page: Page) -> str:
    text = (
        "Ours: mean ± standard deviation over seeds. `paper`: the published number. ★: best row. "
        "↑ ↓ ≈: larger, smaller, closer to the reference is better."
    )
    if page.has_comparable:
        text += " Δ = ours − published; ● inside the two spreads together, ▲ ▼ above or below them, ◌ no spread known."
    return text


def _claims(page: Page) -> list[str]:
    lines = []
    for claim in page.claims:
        glyph = GLYPHS[claim["status"]]
        lines.append(
            f"- {glyph} **{claim['status']}** ({claim['level']}) {escape(claim['id'])}: "
            f"{escape(claim['text'])} ({escape(claim['where'])})"
        )
        for item in claim["comparisons"]:
            left = f"{escape(item['left_text'])} = " if item["left_text"] else ""
            right = f" = {escape(item['right_text'])}" if item["right_text"] else ""
            numbers = f"{item['left_number']} {item['op']} {item['right_number']}"
            lines.append(f"  - {left}{numbers}{right}, margin {item['margin_text']}")
        if claim["agreement"]:
            lines.append(f"  - {claim['agreement']}")
        if claim["cells"]:
            cells = [f"{c['place']} {c['metric']} {c['number']} (n={c['n']})" for c in claim["cells"]]
            lines.append(f"  - from {escape('; '.join(cells))}")
        if claim["reason"]:
            lines.append(f"  - {escape(claim['reason'])}")
    lines += [f"- not evaluated at this scale: {escape(text)}" for text in page.not_evaluated]
    return [*(lines or ["No claims."]), ""]


def _experiment(experiment: ExperimentView) -> list[str]:
    lines = [f"### {escape(experiment.key)}: {escape(experiment.title)}", ""]
    if experiment.note:
        lines += [escape(experiment.note), ""]
    for view in experiment.tables:
        lines += _table(view)
    for label, why in experiment.not_run:
        lines += [f"- {escape(label)} is not run here: {escape(why)}"]
    return [*lines, ""] if experiment.not_run else lines


def _table(view: TableView) -> list[str]:
    seeds = f" ({view.num_seeds})" if view.num_seeds else ""
    lines = [f"#### {escape(view.label)}{seeds}", ""]
    if view.other_data:
        lines += [f"> {escape(view.other_data)}", ""]
    header = ["method"] + [
        " ".join(filter(None, [c["name"], f"({c['unit']})" * bool(c["unit"]), c["arrow"]])) for c in view.columns
    ]
    rows = []
    for row in view.rows:
        rows.append([row.label] + [_ours(cell) for cell in row.cells])
        if any(cell.published for cell in row.cells):
            rows.append(["· paper"] + [_published(cell) for cell in row.cells])
        if not view.other_data and any(cell.delta for cell in row.cells):
            rows.append(["· Δ"] + [_delta(cell) for cell in row.cells])
    lines += [*table(header, rows), ""]
    lines += [f"- {escape(row)}: {escape(why)}" for row, why in view.missing]
    return [*lines, ""] if view.missing else lines


def _ours(cell: CellView) -> str:
    text = cell.ours or cell.status
    return f"★ {text}" if cell.is_best else text


def _published(cell: CellView) -> str:
    return f"{cell.published} ({cell.mark})" if cell.published and cell.mark else cell.published


def _delta(cell: CellView) -> str:
    return f"{cell.delta} {cell.glyph}".rstrip()
