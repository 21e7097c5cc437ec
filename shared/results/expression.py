"""Claim expressions: a whitelist of Python syntax over table cells. Nothing is ever passed to
`eval`.

Allowed: numbers, + - * /, unary + and -, comparisons (also chained), and / or / not, and calls of
`abs`, `min`, `max`, `mean`, `cell`, `others`, `published`. The last three take four strings:
experiment, setting, row, metric. `others` is the list of that metric over all rows but the named
one and the reference row.
"""

import ast
import operator
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from shared.errors import UserError, nearest

MAX_LENGTH = 4000
CELL_FUNCTIONS = ("cell", "others", "published")
FUNCTIONS: dict[str, Callable[[list[float]], float]] = {
    "abs": lambda values: abs(values[0]),
    "min": min,
    "max": max,
    "mean": lambda values: sum(values) / len(values),
}
_ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type, tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}

Value = float | bool | list[float]
CellName = tuple[str, str, str, str]


class ExpressionError(UserError):
    """The expression uses something not allowed, or cannot be computed from these numbers."""


class Source(Protocol):
    """Where an expression finds its numbers; each may raise its own error for a missing cell."""

    def cell(self, name: CellName) -> float: ...
    def others(self, name: CellName) -> list[float]: ...
    def published(self, name: CellName) -> float: ...


@dataclass(frozen=True)
class Compared:
    """One comparison with both sides' numbers. margin > 0: by how much it holds; < 0: by how much
    it fails.
    """

    left_text: str
    left: float
    op: str
    right_text: str
    right: float
    holds: bool
    margin: float


def parse(text: str) -> ast.expr:
    """Parse and check an expression. Raises ExpressionError naming what is refused, and where."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression of {len(text)} characters; at most {MAX_LENGTH}")
    # A YAML block keeps its line breaks, which would end the expression.
    line = " ".join(text.strip().splitlines())
    try:
        tree = ast.parse(line, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"not an expression: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"not an expression: {error}") from None
    if any(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(iter([line]).__next__)):
        # On one line a comment would silently swallow the conditions behind it.
        raise ExpressionError("no comments inside an expression; write them as YAML comments above it")
    if _kind(tree) != "truth":
        raise ExpressionError("a claim must be a comparison (such as a < b), or several joined by and / or / not")
    return tree


def _kind(node: ast.expr) -> str:
    """ "truth", "number" or "list"; raises ExpressionError for anything outside the whitelist."""
    match node:
        case ast.BoolOp(values=values):
            _want("truth", values, "and / or join comparisons")
            return "truth"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _want("truth", [operand], "not needs a comparison")
            return "truth"
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for op in ops:
                if type(op) not in _COMPARISONS:
                    raise _refused(node, f"comparison '{type(op).__name__}'")
            _want("number", [left, *comparators], "comparisons are between numbers")
            return "truth"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _want("number", [operand], "arithmetic is on numbers; use min, max or mean for a list")
            return "number"
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in _ARITHMETIC:
                raise _refused(node, f"operator '{type(op).__name__}'")
            _want("number", [left, right], "arithmetic is on numbers; use min, max or mean for a list")
            return "number"
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            return "number"
        case ast.Call(func=ast.Name(id=name)):
            return _call_kind(node, name)
    raise _refused(node, f"'{ast.unparse(node)}' ({type(node).__name__})")


def _call_kind(node: ast.Call, name: str) -> str:
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise _refused(node, f"{name} with keywords or *")
    if name in CELL_FUNCTIONS:
        strings = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if len(strings) != 4 or len(node.args) != 4:
            raise ExpressionError(f"{ast.unparse(node)}: {name} takes four strings: experiment, setting, row, metric")
        return "list" if name == "others" else "number"
    if name not in FUNCTIONS:
        raise _refused(node, f"function '{name}'{nearest(name, [*FUNCTIONS, *CELL_FUNCTIONS])}")
    if not node.args or (name == "abs" and len(node.args) != 1):
        raise ExpressionError(f"{ast.unparse(node)}: wrong number of arguments")
    kinds = [_kind(argument) for argument in node.args]
    if "truth" in kinds or (name == "abs" and kinds != ["number"]):
        raise ExpressionError(f"{ast.unparse(node)}: {name} is of numbers")
    return "number"


def _want(kind: str, nodes: list[ast.expr], message: str) -> None:
    for node in nodes:
        if _kind(node) != kind:
            raise ExpressionError(f"'{ast.unparse(node)}': {message}")


def _refused(node: ast.expr, what: str) -> ExpressionError:
    return ExpressionError(f"{what} is not allowed at column {node.col_offset + 1}; see shared/results/expression.py")


def cells_of(tree: ast.expr) -> Iterator[tuple[str, CellName]]:
    """(function, (experiment, setting, row, metric)) of every cell, others and published call, in
    reading order.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CELL_FUNCTIONS:
            yield node.func.id, _name(node)


def _name(node: ast.Call) -> CellName:
    experiment, setting, row, metric = (str(a.value) for a in node.args if isinstance(a, ast.Constant))
    return experiment, setting, row, metric


def evaluate(tree: ast.expr, source: Source) -> tuple[bool, list[Compared]]:
    """Truth of a parsed claim, and every comparison in it with its numbers. Nothing is
    short-circuited.

    Raises ExpressionError for a division by zero and for a list without numbers.
    """
    compared: list[Compared] = []

    def number(node: ast.expr) -> float:
        value = visit(node)
        assert not isinstance(value, list)
        return float(value)

    def visit(node: ast.expr) -> Value:
        match node:
            case ast.BoolOp(op=op, values=values):
                truths = [bool(visit(value)) for value in values]
                return all(truths) if isinstance(op, ast.And) else any(truths)
            case ast.UnaryOp(op=op, operand=operand):
                if isinstance(op, ast.Not):
                    return not visit(operand)
                return -number(operand) if isinstance(op, ast.USub) else number(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                numbers = [number(side) for side in sides]
                pairs = [_compare(op, sides[i], sides[i + 1], numbers[i], numbers[i + 1]) for i, op in enumerate(ops)]
                compared.extend(pairs)
                return all(pair.holds for pair in pairs)
            case ast.BinOp(left=left, op=op, right=right):
                try:
                    return _ARITHMETIC[type(op)](number(left), number(right))
                except ZeroDivisionError:
                    raise ExpressionError(f"division by zero in {describe(node)}") from None
            case ast.Call(func=ast.Name(id=name), args=args):
                return call(node, name, args)
            case ast.Constant(value=int() | float() as value):
                return float(value)
        raise AssertionError(f"{type(node).__name__} passed parse()")

    def call(node: ast.Call, name: str, args: list[ast.expr]) -> Value:
        if name in CELL_FUNCTIONS:
            lookup: Callable[[CellName], Value] = getattr(source, name)
            return lookup(_name(node))
        numbers: list[float] = []
        for argument in args:
            value = visit(argument)
            numbers += value if isinstance(value, list) else [float(value)]
        if not numbers:
            raise ExpressionError(f"{describe(node)} has no numbers")
        return FUNCTIONS[name](numbers)

    return bool(visit(tree)), compared


def _compare(op: ast.cmpop, left: ast.expr, right: ast.expr, a: float, b: float) -> Compared:
    sign, function = _COMPARISONS[type(op)]
    margin = {
        "<": b - a,
        "<=": b - a,
        ">": a - b,
        ">=": a - b,
        "==": -abs(a - b),
        "!=": abs(a - b),
    }[sign]
    several = len({name[0] for side in (left, right) for _, name in cells_of(side)}) > 1
    return Compared(describe(left, several), a, sign, describe(right, several), b, function(a, b), margin)


def describe(node: ast.expr, experiments: bool = False) -> str:
    """An expression as a reader writes it: `Avg. Gap(SalUn, random10)` for a cell, or `Avg. Gap(SalUn, E1 random10)`
    where several `experiments` are compared."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=args) if name in CELL_FUNCTIONS:
            experiment, setting, row, metric = _name(node)
            place = f"{experiment} {setting}" if experiments else setting
            inner = {"cell": row, "others": f"others than {row}", "published": f"published {row}"}[name]
            return f"{metric}({inner}, {place})"
        case ast.Call(func=ast.Name(id="abs"), args=args):
            return f"|{describe(args[0], experiments)}|"
        case ast.Call(func=ast.Name(id=name), args=args):
            return f"{name}({', '.join(describe(argument, experiments) for argument in args)})"
        case ast.BinOp(left=left, op=op, right=right):
            sign = {ast.Add: "+", ast.Sub: "−", ast.Mult: "×", ast.Div: "/"}[type(op)]
            # On the right of - and /, an expression of the same rank needs parentheses too.
            strict = isinstance(op, ast.Sub | ast.Div)
            return f"{_inner(left, _rank(op), experiments)} {sign} {_inner(right, _rank(op) + strict, experiments)}"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"−{_inner(operand, 2, experiments)}"
    return ast.unparse(node)


def _rank(op: ast.operator) -> int:
    return 2 if isinstance(op, ast.Mult | ast.Div) else 1


def _inner(node: ast.expr, rank: int, experiments: bool) -> str:
    """`node` in parentheses if it binds more weakly than an operator of `rank`."""
    text = describe(node, experiments)
    return f"({text})" if isinstance(node, ast.BinOp) and _rank(node.op) < rank else text
