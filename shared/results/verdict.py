"""The verdict of a paper at one scale: red when a hard claim does not hold or a planned cell has no
number.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.results.cells import FAILED, MISSING, TableCell, Tables, read_tables
from shared.results.claims import FAILS, NOT_MEASURED, ClaimResult, count, read_results
from shared.results.spec import parse_spec

NUM_SHOWN = 12


@dataclass(frozen=True)
class Verdict:
    """is_green, one line for the header, and the reasons of a red verdict (empty when green)."""

    is_green: bool
    line: str
    reasons: list[str]

    @property
    def shown(self) -> list[str]:
        """The first reasons, for headers and terminals; the tables name every missing row."""
        more = len(self.reasons) - NUM_SHOWN
        return self.reasons[:NUM_SHOWN] + [f"and {more} more, see the tables"] * (more > 0)


def verdict(spec: dict[str, Any]) -> int:
    """Exit code of a paper's run: 0 green; 1 when a hard claim fails or has no numbers, or a cell
    is missing.
    """
    found = judge_folder(parse_spec(spec).folder)
    print("\n".join([found.line, *(f"  - {reason}" for reason in found.shown)]))
    return 0 if found.is_green else 1


def judge_folder(folder: str | Path) -> Verdict:
    """Verdict from tables.json and claims.json of a paper's results folder."""
    return judge(read_tables(Path(folder) / "tables.json"), read_results(Path(folder) / "claims.json"))


def judge(tables: Tables, claims: list[ClaimResult]) -> Verdict:
    """Verdict of tables and evaluated claims."""
    reasons = []
    for claim in claims:
        if claim.level == "hard" and claim.status in (FAILS, NOT_MEASURED):
            reasons.append(f"hard claim {claim.id} {'fails' if claim.status == FAILS else 'is not measured'}")
    measured, planned, groups = cell_counts(tables)
    reasons += [f"{place}: {reason}" for place, reason in groups]
    counts = count(claims)
    hard = counts["hard_held"] + counts["hard_failed"]
    hard += sum(c.level == "hard" and c.status == NOT_MEASURED for c in claims)
    reported = sum(c.level == "reported" for c in claims)
    parts = [
        f"{counts['hard_held']} of {hard} hard claims hold" if hard else "no hard claim at this scale",
        f"{counts['reported_held']} of {reported} reported claims hold" if reported else "",
        f"{measured} of {planned} numbers measured",
    ]
    return Verdict(not reasons, ", ".join(filter(None, parts)), reasons)


def cell_counts(tables: Tables) -> tuple[int, int, list[tuple[str, str]]]:
    """(measured, planned, gaps): listed numbers only; gaps are (place, reason), one a row rather
    than one a number.
    """
    listed = [cell for cell in tables.cells if cell.listed and cell.status != "not run"]
    measured = sum(cell.status == "measured" for cell in listed)
    return measured, len(listed), incomplete(listed)


def incomplete(cells: list[TableCell]) -> list[tuple[str, str]]:
    """(place, reason) of every listed number without all its seeds; metrics with one common reason
    share a line.
    """
    grouped: dict[tuple[str, str, str], dict[tuple[str, str], list[str]]] = {}
    for cell in cells:
        if cell.listed and not cell.is_complete:
            status = cell.status if cell.status in (MISSING, FAILED) else "incomplete"
            place = (cell.experiment, cell.setting, cell.row)
            grouped.setdefault(place, {}).setdefault((status, cell.reason), []).append(cell.metric)
    num_listed = Counter((c.experiment, c.setting, c.row) for c in cells if c.listed)
    lines = []
    for place, reasons in grouped.items():
        for (status, reason), metrics in reasons.items():
            which = "" if len(metrics) == num_listed[place] else f" ({', '.join(metrics)})"
            lines.append((" / ".join(place), f"{status}{which}: {reason}"))
    return lines
