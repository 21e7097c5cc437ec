"""Sine tables against two other implementations; resizing, once a shape."""

import itertools
import math

import torch
import torch.nn.functional as F

from papers.mimdet.models.positions import ResizedTables, resize_table, sincos_table


def test_the_table_entry_by_entry():
    """Sines, then cosines of the column, then those of the row; frequencies 10000^(-k / 8)."""
    table = sincos_table(32, 6)[0]
    assert table[0].abs().max() == 0
    for row, column, k in itertools.product((0, 1, 5), (0, 2, 5), range(8)):
        position = table[1 + 6 * row + column]
        frequency = 10000 ** (-k / 8)
        expected = [f(x * frequency) for x in (column, row) for f in (math.sin, math.cos)]
        torch.testing.assert_close(position[k::8], torch.tensor(expected))
    assert sincos_table(768, 50).shape == (1, 2501, 768)


def test_the_two_orders_of_axes_are_each_others_transpose():
    columns, rows = (sincos_table(32, 6, axes, extra=0).unflatten(1, (6, 6)) for axes in ("columns", "rows"))
    torch.testing.assert_close(rows, columns.transpose(1, 2))
    assert not torch.equal(rows, columns)
    # the first half of a position encodes its column: it is the same all along a column
    assert torch.equal(columns[0, 0, 2, :16], columns[0, 5, 2, :16])


def test_resizing_is_bicubic_without_aligned_corners():
    table = torch.randn(1, 1 + 49, 8)
    square = table[0, 1:].reshape(7, 7, 8).permute(2, 0, 1)
    for size in ((7, 7), (5, 11), (14, 14)):
        expected = F.interpolate(square[None], size, mode="bicubic", align_corners=False)[0]
        torch.testing.assert_close(resize_table(table, size)[0].T.unflatten(1, size), expected)
    constant = torch.ones(1, 50, 8)
    torch.testing.assert_close(resize_table(constant, (9, 4)), torch.ones(1, 36, 8))


def test_a_shape_is_resized_once():
    store, table = ResizedTables(), torch.randn(1, 50, 8)
    first = store.get(table, (5, 6))
    assert store.get(table, (5, 6)) is first
    assert store.num_resized == 1
    store.get(table, (6, 5))
    assert store.num_resized == 2


def test_new_values_or_another_table_are_resized_again():
    store, table = ResizedTables(), torch.randn(1, 50, 8)
    before = store.get(table, (5, 6)).clone()
    table.mul_(2)
    torch.testing.assert_close(store.get(table, (5, 6)), 2 * before)
    torch.testing.assert_close(store.get(table.clone() * 2, (5, 6)), 4 * before)
    doubled = store.get(table.double(), (5, 6))
    assert doubled.dtype == torch.float64


def test_the_store_stays_small():
    store, table = ResizedTables(), torch.randn(1, 50, 8)
    for height in range(1, 60):
        store.get(table, (height, 3))
    assert len(store._tables) == 16
    assert store.num_resized == 59
    store.get(table, (59, 3))
    assert store.num_resized == 59
