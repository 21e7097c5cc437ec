"""The tree of rows, against the rows themselves."""

import pytest

from shared.text.answer_tree import answer_tree, common_prefix

ROWS = [[1, 2, 3, 4], [1, 2, 5], [1, 2], [9], [1, 2, 3, 4], [1, 2, 5, 3, 4], []]


def test_a_path_spells_its_row():
    tree = answer_tree(ROWS)
    assert [[tree.keys[node] for node in path] for path in tree.paths] == ROWS
    assert all([tree.depth[node] for node in path] == list(range(len(path))) for path in tree.paths)


def test_every_distinct_beginning_is_one_node():
    beginnings = {tuple(row[:stop]) for row in ROWS for stop in range(1, len(row) + 1)}
    assert len(answer_tree(ROWS).keys) == len(beginnings) == 8


def test_ancestors_are_the_nodes_whose_range_holds_the_node():
    tree = answer_tree(ROWS)
    for path in tree.paths:
        for position, node in enumerate(path):
            seen = [other for other in range(len(tree.keys)) if other <= node <= tree.last[other]]
            assert seen == path[: position + 1]


@pytest.mark.parametrize(
    ("first", "second", "shared"), [([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([], [1], 0), ([2], [1], 0)]
)
def test_common_prefix(first, second, shared):
    assert common_prefix(first, second) == shared
