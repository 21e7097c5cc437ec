"""A figure of a report, and the house style: inline SVG that follows the page's light or dark
colours.

with drawing(6.4, 3.0) as (fig, ax):
    ax.bar(...)
    svg = svg_of(fig, "gaps-E1-random10")
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's palette: distinct under the common forms of colour blindness, and on white as on
# dark grey.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C", "#B59F00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "p"]
# Everything drawn in this colour becomes CSS `currentColor`, that is the page's own text colour.
INK = "#1a2b3c"
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Figure:
    """One figure. svg: a complete <svg> element as text; alt: what it shows, in words."""

    title: str
    caption: str
    svg: str
    alt: str

    def __post_init__(self) -> None:
        if not self.svg.lstrip().startswith("<svg") or re.search(r"<script|<foreignObject", self.svg, re.IGNORECASE):
            raise UserError(
                f"figure '{self.title}': not a plain <svg> element; make it with shared.results.figure.svg_of"
            )


@dataclass(frozen=True)
class Listing:
    """Texts side by side, such as the answers of several models: a table of strings, shown with the figures.

    rows: each as long as columns. An empty first field continues the line above.
    """

    title: str
    caption: str
    columns: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise UserError(f"listing '{self.title}': row {number} has {len(row)} of {len(self.columns)} fields")


@contextmanager
def drawing(
    width: float, height: float, num_rows: int = 1, num_columns: int = 1, **options: Any
) -> Iterator[tuple["Canvas", Any]]:
    """A matplotlib figure (inches) and its axes in the house style; closed at the end. options: of
    `subplots`.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.alpha": 0.18,
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
    }
    with matplotlib.rc_context(style):
        # Without pyplot there is no global state and no backend to choose.
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(canvas)
        yield canvas, canvas.subplots(num_rows, num_columns, **options)


def svg_of(canvas: "Canvas", name: str) -> str:
    """The figure as an <svg> element. The same drawing gives the same bytes; `name` keeps its ids
    apart from those of other figures on the page.
    """
    import matplotlib

    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "figure"
    stream = io.StringIO()
    # A date, or a hash salted at random, would change the report without a change of its numbers.
    with matplotlib.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "none", "svg.image_inline": True}):
        canvas.savefig(
            stream,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = stream.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(INK, "currentColor", svg, flags=re.IGNORECASE)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", _FONTS, svg)
    # Width and height in points would overflow a phone; the viewBox keeps the proportions.
    head, _, body = svg.partition(">")
    head = re.sub(r' height="[^"]*"', "", head)
    head = re.sub(r' width="([\d.]+)pt"', r' style="max-width:\1pt"', head)
    return f"{head}>{body}".strip()


def plain(text: str) -> str:
    """`text` for a matplotlib label: a dollar sign would start mathematics."""
    return text.replace("$", r"\$")
