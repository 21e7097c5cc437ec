"""Run A against run B, cell by cell: what moved beyond its spread?

A cell has moved if |mean B - mean A| > std A + std B. Where neither spread is known (one seed
each), any difference beyond rounding is a move: the same seed on the same device gives the same
number. Times and memory are shown but never count, they belong to the machine.
"""

from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import RecordError
from shared.results import show
from shared.results.cells import MEASURED, TableCell, Tables, read_tables
from shared.results.compare import is_cost
from shared.results.markdown import table
from shared.results.tables import read_csv

ROUNDING = 1e-9

# paper, scale, experiment, setting, row, metric; paper and scale are empty when two single tables
# are compared
Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Move:
    """One cell that both runs have. delta = mean B - mean A."""

    key: Key
    a: TableCell
    b: TableCell
    delta: float
    limit: float
    is_cost: bool

    @property
    def has_moved(self) -> bool:
        return not self.is_cost and abs(self.delta) > self.limit

    @property
    def place(self) -> str:
        return " / ".join(filter(None, self.key[:5]))


@dataclass(frozen=True)
class Difference:
    """Every shared cell, and the cells that only one run has measured."""

    cells: list[Move]
    only_a: list[Key] = field(default_factory=list)
    only_b: list[Key] = field(default_factory=list)

    @property
    def moved(self) -> list[Move]:
        return [cell for cell in self.cells if cell.has_moved]


def difference(a: str | Path, b: str | Path, paper: str | None = None) -> Difference:
    """Compare two runs: results folders, folders of one paper (at one scale or all), tables.json or
    CSV files.

    paper: only this one. Raises RecordError for a path without tables, and for runs that share no
    cell.
    """
    left, right = (load(Path(path), paper) for path in (a, b))
    if _is_single(left) and _is_single(right):
        # Two scales, or two copies, of one table: there the paper's and scale's names say nothing.
        left, right = ({("", "", *key[2:]): cell for key, cell in side.items()} for side in (left, right))
    both = [key for key in left if key in right]
    if not both:
        raise RecordError(f"{a} and {b} have no measured cell in common")
    for key in both:
        if left[key].unit != right[key].unit:
            units = f"'{left[key].unit}' and '{right[key].unit}'"
            raise RecordError(f"{' / '.join(filter(None, key))}: the two runs use the units {units}")
    return Difference(
        cells=[_move(key, left[key], right[key]) for key in both],
        only_a=[key for key in left if key not in right],
        only_b=[key for key in right if key not in left],
    )


def _is_single(cells: dict[Key, TableCell]) -> bool:
    return len({key[:2] for key in cells}) == 1


def load(path: Path, paper: str | None) -> dict[Key, TableCell]:
    """Measured cells of a run, by paper, scale and place."""
    cells: dict[Key, TableCell] = {}
    for tables in _tables_in(path):
        if paper is None or not tables.paper or tables.paper == paper:
            for cell in tables.cells:
                if cell.status == MEASURED:
                    cells[tables.paper, tables.scale, *cell.key] = cell
    if not cells:
        of = f" of {paper}" if paper else ""
        raise RecordError(f"{path}: holds no measured cell{of}")
    return cells


def _tables_in(path: Path) -> list[Tables]:
    if path.is_file():
        if path.suffix == ".csv":
            return [Tables("", "", "", None, read_csv(path))]
        return [read_tables(path)]
    if not path.is_dir():
        raise RecordError(f"{path}: no such file or folder")
    for pattern in ("tables.json", "*/tables.json", "*/*/tables.json"):
        found = sorted(path.glob(pattern))
        if found:
            return [read_tables(file) for file in found]
    raise RecordError(f"{path}: holds no tables.json (a results folder, a paper's folder or a table is needed)")


def _move(key: Key, a: TableCell, b: TableCell) -> Move:
    assert a.mean is not None
    assert b.mean is not None
    rounding = ROUNDING * max(abs(a.mean), abs(b.mean))
    limit = (a.std or 0.0) + (b.std or 0.0) + rounding
    return Move(key, a, b, b.mean - a.mean, limit, is_cost(a.unit))


def summary(found: Difference) -> str:
    """One line."""
    counted = [cell for cell in found.cells if not cell.is_cost]
    line = f"{len(found.moved)} of {len(counted)} cells moved beyond their spread"
    only = [f"{len(keys)} only in {side}" for side, keys in (("A", found.only_a), ("B", found.only_b)) if keys]
    return ", ".join([line, *only])


def rows_of(cells: list[Move]) -> list[list[str]]:
    """place, metric, A, B, difference, limit as text."""
    return [
        [
            cell.place,
            f"{cell.key[5]} ({cell.a.unit})" if cell.a.unit else cell.key[5],
            show.spread(cell.a.mean, cell.a.std, cell.a.unit),
            show.spread(cell.b.mean, cell.b.std, cell.b.unit),
            show.number(cell.delta, cell.a.unit, sign=True),
            show.number(cell.limit, cell.a.unit),
        ]
        for cell in cells
    ]


COLUMNS = ["cell", "metric", "A", "B", "B − A", "spreads"]


def text(found: Difference) -> str:
    """The difference for a terminal: moved cells, then cells on one side only."""
    lines = [summary(found) + "."]
    if found.moved:
        lines += ["", *table(COLUMNS, rows_of(found.moved), 2)]
    for side, keys in (("A", found.only_a), ("B", found.only_b)):
        lines += [f"only in {side}: {' / '.join(filter(None, key))}" for key in keys]
    return "\n".join(lines)


def html(found: Difference, a: str, b: str) -> str:
    """The difference as one self-contained page, every cell included."""
    from shared.results.report import render

    parts = [
        ("Moved beyond their spread", "bad", rows_of(found.moved)),
        (
            "Inside their spread",
            "good",
            rows_of([c for c in found.cells if not c.has_moved and not c.is_cost]),
        ),
        ("Times and memory (never decide)", "none", rows_of([c for c in found.cells if c.is_cost])),
    ]
    only = [
        (side, [" / ".join(filter(None, key)) for key in keys])
        for side, keys in (("A", found.only_a), ("B", found.only_b))
        if keys
    ]
    has_moved = bool(found.moved)
    return render(
        "diff.html.j2",
        a=a,
        b=b,
        line=summary(found),
        has_moved=has_moved,
        parts=parts,
        only=only,
        columns=COLUMNS,
    )
