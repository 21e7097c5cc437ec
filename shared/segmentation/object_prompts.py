"""Boxes and points of many masks at once, on the device: what a training step from scratch asks with.

Points and boxes are (x, y) pixel indices, as in `shared.segmentation.prompts`.
"""

import torch
from torch import Tensor


def object_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 of x0, y0, x1, y1, the last index inclusive, of masks (N, H, W) bool. No mask may be empty."""
    sides = []
    for axis in (1, 2):
        occupied = masks.any(axis).byte()  # argmax gives the first of equals
        sides += [occupied.argmax(1), occupied.shape[1] - 1 - occupied.flip(1).argmax(1)]
    x0, x1, y0, y1 = sides
    return torch.stack([x0, y0, x1, y1], 1).float()


def drawn_pixels(masks: Tensor, draws: Tensor) -> Tensor:
    """Pixels of masks (N, H, W) bool that uniform draws (N, K) in [0, 1) choose: (N, K, 2) float32.

    With n pixels in a mask, draw u takes number floor(u n) in reading order. No mask may be empty.
    """
    reached = masks.flatten(1).cumsum(1, dtype=torch.int32)
    num = reached[:, -1:]
    number = torch.minimum((draws * num).int(), num - 1)  # u n may round up to n
    position = torch.searchsorted(reached, number + 1)
    width = masks.shape[2]
    return torch.stack([position % width, position // width], 2).float()


def point_prompts(masks: Tensor, draws: Tensor, background: float) -> tuple[Tensor, Tensor]:
    """Random object pixels, and with probability `background` one pixel outside: points (N, K, 2), labels (N, K).

    draws: (N, K' + 2) uniform in [0, 1): K' object pixels, the background pixel, and whether it is given. Labels are 1,
    0 for the background pixel, -1 where it is not given. K is K' if background is 0, else K' + 1.
    """
    points = drawn_pixels(masks, draws[:, :-2])
    labels = points.new_ones(points.shape[:2])
    if background == 0:
        return points, labels
    outside = ~masks
    given = (draws[:, -1] < background) & outside.flatten(1).any(1)
    # a mask that fills the picture has no pixel outside: any will do for a point that is not given
    negative = drawn_pixels(outside | ~given[:, None, None], draws[:, -2:-1])
    given_column = given[:, None]
    points = torch.cat([points, negative * given_column[..., None]], 1)
    return points, torch.cat([labels, given_column.float() - 1], 1)
