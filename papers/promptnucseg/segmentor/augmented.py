"""Six views of a square window: itself, two flips, three rotations, whose masks are turned back and averaged."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """A picture turned by `turns` quarters against the clock, then mirrored along the axes `flip` (-1: left to right).

    exact: points turn with their pixels, about the middle of the pixel grid. The released code turns them about
    (S / 2, S / 2), which puts them one pixel beside; mirrored points are exact in both.
    """

    turns: int = 0
    flip: tuple[int, ...] = ()
    exact: bool = True

    def pictures(self, x: Tensor) -> Tensor:
        """(..., S, S) as this view shows it."""
        return torch.rot90(x, self.turns, (-2, -1)).flip(self.flip)

    def restored(self, x: Tensor) -> Tensor:
        """Inverse of `pictures`."""
        return torch.rot90(x.flip(self.flip), -self.turns, (-2, -1))

    def points(self, xy: Tensor, side: int) -> Tensor:
        """Points (..., 2) as x, y in pixels of the S x S picture, where this view shows them."""
        last = side - 1 if self.exact else side
        for _ in range(self.turns):
            xy = torch.stack([xy[..., 1], last - xy[..., 0]], -1)
        x, y = xy.unbind(-1)
        x = side - 1 - x if -1 in self.flip else x
        y = side - 1 - y if -2 in self.flip else y
        return torch.stack([x, y], -1)


def views(passes: str) -> list[View]:
    """The views of `InferenceOptions.passes`: `one`, `six` or `six_official`."""
    if passes == "one":
        return [View()]
    turned = [View(turns, exact=passes == "six") for turns in (1, 2, 3)]
    return [View(), View(flip=(-1,)), View(flip=(-2,)), *turned]
