"""Rows that begin alike as one tree of tokens: what they share is computed once.

The answers to one question share its prompt, and perturbed answers often their first words too. With an attention
mask that lets every token see its ancestors only, and positions counted from the root, one forward pass over the
tree gives each token the hidden state that it has in its own row (the tree attention of speculative decoding,
SpecInfer, arXiv:2305.09781). Torch-free.
"""

from collections.abc import Sequence
from typing import NamedTuple


class AnswerTree(NamedTuple):
    """N nodes in preorder: node j is an ancestor of i, or i itself, exactly if j <= i <= last[j].

    keys: tokens. depth: position in the row, from 0. last: the last node below. paths: for every row, its nodes.
    """

    keys: list[int]
    depth: list[int]
    last: list[int]
    paths: list[list[int]]


def answer_tree(rows: Sequence[Sequence[int]]) -> AnswerTree:
    """Tree of token rows, which need not be different; rows come back in their order.

    In lexicographic order a row shares with all rows before it just what it shares with the one before it.
    """
    keys: list[int] = []
    depth: list[int] = []
    last: list[int] = []
    paths: list[list[int]] = [[] for _ in rows]
    previous: Sequence[int] = ()
    path: list[int] = []
    for number in sorted(range(len(rows)), key=lambda n: list(rows[n])):
        row = rows[number]
        shared = common_prefix(previous, row)
        path = path[:shared] + list(range(len(keys), len(keys) + len(row) - shared))
        keys.extend(row[shared:])
        depth.extend(range(shared, len(row)))
        last.extend([0] * (len(row) - shared))
        for node in path:
            last[node] = len(keys) - 1
        paths[number], previous = path, row
    return AnswerTree(keys, depth, last, paths)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading entries that two rows share."""
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return number
    return min(len(first), len(second))
