"""Pictures of results: image | base | ours | truth with contours, for the best, median and worst case.

figure = overlay_figure(cases, title, caption, name)      # a Figure of a report
picture = draw_contours(image, masks)                     # an array, for a tool that writes PNG
"""

import base64
import html
import io
import re
import textwrap
from dataclasses import dataclass

import numpy as np

from shared.errors import DataError
from shared.results.figure import COLOURS, Figure
from shared.segmentation.samples import FOREGROUND, Array, Instances, Objects

PANEL = 240  # pixels of a panel's longer side
MOST_BYTES = 60_000  # of one case's PNG
_GAP = 4
_COLOURS = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS]
Truth = Array | Instances | Objects


@dataclass(frozen=True)
class Case:
    """One row of the figure. panels: column title -> what is drawn over the image (None: the image alone).

    A mask is (H, W) bool or soft uint8, or Instances, or Objects, or bool masks (n, H, W). label: what the case is.
    example: an annotated image and its mask, shown as the first panel.
    """

    label: str
    image: Array
    panels: dict[str, Truth | None]
    example: tuple[Array, Truth] | None = None

    @property
    def columns(self) -> list[str]:
        """Titles of the panels."""
        return [*([] if self.example is None else ["example"]), *self.panels]


def best_median_worst(scores: Array) -> dict[str, int]:
    """Indices of the best, median and worst of the defined scores (N,), higher being better; equals in their order."""
    defined = np.flatnonzero(~np.isnan(scores))
    if not defined.size:
        raise DataError("no case has a defined score to show")
    order = defined[np.argsort(-np.asarray(scores)[defined], kind="stable")]
    return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


def draw_contours(image: Array, truth: Truth, scale: float = 1.0, by_instance: bool = True) -> Array:
    """The image (H, W, 3) uint8, resized by `scale`, with the inner contour of every mask.

    by_instance: neighbouring ids get different colours; else all contours have the first one.
    """
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    picture = _resized(image, (height, width))
    for number, labels in enumerate(_label_maps(truth)):
        if labels.shape != image.shape[:2]:
            raise DataError(f"a mask of {labels.shape} over an image of {image.shape[:2]}, expected one size")
        labels = _nearest(labels, (height, width))
        rows, columns = np.nonzero(contour(labels))
        ids = labels[rows, columns] + number
        picture[rows, columns] = np.array(_COLOURS, np.uint8)[ids % len(_COLOURS) if by_instance else 0]
    return picture


def contour(labels: Array) -> Array:
    """Pixels of a label map (H, W) that touch another id or background above, below, left or right: bool."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (labels > 0)


def overlay_figure(cases: list[Case], title: str, caption: str, name: str, by_instance: bool = True) -> Figure:
    """A grid of pictures as one SVG: a row a case, a column a panel. Every case has the same panels.

    Each row is one PNG of at most 60 kB: fewer colours first, then fewer pixels. by_instance: as in `draw_contours`; if
    not, panels are dark outside of their mask.
    """
    columns = cases[0].columns if cases else []
    if not columns or any(case.columns != columns for case in cases):
        raise DataError(f"figure '{title}': every case needs the same panels, at least one")
    # Pictures differ in shape: every row is as wide as the page, its height follows.
    unit = 1000 / len(columns)
    # a letter is about 7.5 wide: long headings take several lines, for neighbours must not run into each other
    headings = [textwrap.wrap(heading, max(8, int(unit / 7.5))) or [""] for heading in columns]
    most = max(map(len, headings))
    parts, top = [], 8.0 + 16.0 * most
    for index, lines in enumerate(headings):
        for number, line in enumerate(lines, most - len(lines)):
            parts.append(_text(line, (index + 0.5) * unit, 14.0 + 16.0 * number, "middle"))
    for case in cases:
        strip = _strip(case, by_instance)
        height = 1000 * strip.shape[0] / strip.shape[1]
        parts.append(_text(case.label, 0.0, top + 14.0, "start"))
        data = base64.b64encode(small_png(strip)).decode("ascii")
        parts.append(
            f'<image x="0" y="{top + 20:.1f}" width="1000" height="{height:.1f}" href="data:image/png;base64,{data}"/>'
        )
        top += height + 34
    identity = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "overlays"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{identity}" viewBox="0 0 1000 {top:.1f}" '
        f'style="max-width:1000px">{"".join(parts)}</svg>'
    )
    shown = "; ".join(case.label for case in cases)
    return Figure(title, caption, svg, f"Pictures with contours, columns {', '.join(columns)}: {shown}.")


def png(picture: Array, num_colours: int | None = None) -> bytes:
    """PNG file of (H, W, 3) uint8, reduced to a palette of `num_colours` (at most 256) if given."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    if num_colours:
        image = image.quantize(num_colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def small_png(picture: Array, most_bytes: int = MOST_BYTES) -> bytes:
    """A PNG of at most `most_bytes`: 128, 64, then 32 colours, then three quarters of the pixels a side, and so on."""
    while True:
        for num_colours in (128, 64, 32):
            data = png(picture, num_colours)
            if len(data) <= most_bytes:
                return data
        smaller = tuple(max(1, side * 3 // 4) for side in picture.shape[:2])
        if smaller == picture.shape[:2]:
            raise DataError(f"no picture fits into {most_bytes} bytes")
        picture = _resized(picture, smaller)


def _strip(case: Case, by_instance: bool) -> Array:
    """The panels of a case side by side, on white gaps."""
    # Small images grow by a whole factor, so that contours stay one thin line of sharp pixels.
    longest = max(case.image.shape[:2])
    scale = float(max(1, PANEL // longest)) if longest <= PANEL else PANEL / longest
    drawn = [_panel(case.image, mask, scale, by_instance) for mask in case.panels.values()]
    if case.example is not None:
        drawn.insert(0, _fitted(*case.example, drawn[0].shape, by_instance))
    gap = np.full((drawn[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in drawn for part in (gap, panel)][1:], 1)


def _panel(image: Array, mask: Truth | None, scale: float, by_instance: bool) -> Array:
    """The image with contours; outside of a single mask it is dark, since a thin line alone is easily overlooked."""
    if mask is None:
        return draw_contours(image, np.zeros(image.shape[:2], bool), scale)
    if not by_instance:
        inside = np.zeros(image.shape[:2], bool)
        for labels in _label_maps(mask):
            inside |= labels > 0
        image = np.where(inside[..., None], image, image // 2)
    return draw_contours(image, mask, scale, by_instance)


def _fitted(image: Array, mask: Truth, shape: tuple[int, ...], by_instance: bool) -> Array:
    """The image with contours in the middle of a white picture of another shape."""
    scale = min(after / before for after, before in zip(shape, image.shape[:2], strict=False))
    drawn = _panel(image, mask, scale, by_instance)[: shape[0], : shape[1]]
    picture = np.full(shape, 255, np.uint8)
    top, left = ((after - own) // 2 for after, own in zip(shape, drawn.shape[:2], strict=False))
    picture[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return picture


def _label_maps(truth: Truth) -> list[Array]:
    if isinstance(truth, Instances):
        return [truth.labels]
    if isinstance(truth, Objects):
        return list(truth.masks.astype(np.int32))
    if truth.ndim == 3:
        return list(truth.astype(bool).astype(np.int32))
    return [(truth if truth.dtype == bool else truth > FOREGROUND).astype(np.int32)]


def _resized(image: Array, size: tuple[int, ...]) -> Array:
    from PIL import Image

    if size == image.shape[:2]:
        return np.array(image)
    larger = size[0] > image.shape[0]
    method = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), method))


def _nearest(labels: Array, size: tuple[int, int]) -> Array:
    rows, columns = (
        np.minimum(((np.arange(after) + 0.5) * before / after).astype(np.int64), before - 1)
        for before, after in zip(labels.shape, size, strict=True)
    )
    return labels[rows][:, columns]


def _text(text: str, x: float, y: float, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="14" fill="currentColor" '
        f'font-family="system-ui, sans-serif">{html.escape(text)}</text>'
    )
