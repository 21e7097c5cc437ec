"""Sine-cosine position tables of MAE, and their resized copies."""

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_SHAPES = 16  # multi-scale training sees hundreds of shapes, of 8 MB each


def sincos_table(dim: int, grid: int, axes: str = "columns", extra: int = 1) -> Tensor:
    """Table (1, extra + grid^2, dim) float32, rows of zeros for `extra` tokens before the grid's.

    Half of a position encodes its column, half its row: sines, then cosines of the coordinate times 10000^(-k/n),
    n = dim / 4, k = 0..n-1. axes: which half comes first, the `columns` (MAE) or the `rows`.
    """
    frequency = 10000.0 ** -(np.arange(dim // 4) / (dim / 4))
    angles = np.outer(np.arange(grid), frequency)
    line = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    by_row, by_column = np.repeat(line, grid, 0), np.tile(line, (grid, 1))
    halves = [by_column, by_row] if axes == "columns" else [by_row, by_column]
    table = np.concatenate([np.zeros((extra, dim)), np.concatenate(halves, 1)])
    return torch.from_numpy(table[None].astype(np.float32))


def resize_table(table: Tensor, size: tuple[int, int], extra: int = 1) -> Tensor:
    """Grid part of a table (1, extra + g^2, D) at another size (h, w): (1, h * w, D), bicubic."""
    tokens = table[:, extra:]
    side = round(tokens.shape[1] ** 0.5)
    if size == (side, side):
        return tokens
    square = tokens.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


class ResizedTables:
    """The sizes of a frozen table that were last asked for, each resized once.

    Another table, or new values in it, empties the store.
    """

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self._source: tuple[object, ...] = ()
        self.num_resized = 0

    @torch.no_grad()
    def get(self, table: Tensor, size: tuple[int, int]) -> Tensor:
        """`resize_table(table, size)`."""
        source = (table.data_ptr(), table.device, table.dtype, table._version)
        if source != self._source:
            self._tables.clear()
            self._source = source
        if size not in self._tables:
            self._tables[size] = resize_table(table, size).contiguous()
            self.num_resized += 1
            if len(self._tables) > _MOST_SHAPES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(size)
        return self._tables[size]
