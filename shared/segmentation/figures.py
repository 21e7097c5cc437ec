"""Figures of the segmentation track: masks over images, shares of objects above a Boundary IoU, AJI and PQ of each row,
and detected points.

Drawn from the records' extras (`shared.segmentation.evaluate`), for experiments that list a metric which the figure is
about. Torch-free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.results.figure import COLOURS, INK, MARKERS, Figure, drawing, plain, svg_of
from shared.results.gather import cell_records
from shared.results.settings import Setting, settings
from shared.results.spec import parse_spec
from shared.segmentation.evaluate.cases import ShownCase, unpack
from shared.segmentation.overlays import Case, best_median_worst, contour, overlay_figure
from shared.segmentation.samples import Array, Instances

if TYPE_CHECKING:
    import pandas

MASK_METRICS = ("mIoU", "mBIoU", "AJI", "PQ", "mPQ", "J_and_F")
POINT_METRICS = ("precision", "recall", "F1", "mAP_points")
BAR_METRICS = ("AJI", "PQ")
MOST_ROWS = 4  # as panels beside image and truth
# Pictures of every setting would be most of a report's size.
MOST_SETTINGS = 4
_POINTS = {
    "hit": ("o", COLOURS[2], "found"),
    "false": ("x", COLOURS[5], "false alarm"),
    "missed": ("s", COLOURS[1], "missed"),
}


@dataclass(frozen=True)
class PicturedSetting(Setting):
    """A setting with the cases that its records keep."""

    @cached_property
    def cases(self) -> dict[str, dict[str, ShownCase]]:
        """Row -> name of the image -> case, of each row's first seed; only images that all these rows have."""
        stored = {row: records[0].extras.get("cases", []) for row, records in self.rows.items()}
        found = {row: {c.name: c for c in map(unpack, cases)} for row, cases in stored.items() if cases}
        common = set.intersection(*(set(cases) for cases in found.values())) if found else set()
        return {row: {n: c for n, c in cases.items() if n in common} for row, cases in found.items() if common}

    @property
    def panels(self) -> list[str]:
        """Rows that are shown as pictures: the first one and the last ones."""
        rows = list(self.cases)
        return rows if len(rows) <= MOST_ROWS else [rows[0], *rows[1 - MOST_ROWS :]]

    @cached_property
    def chosen(self) -> dict[str, str]:
        """best, median, worst -> name of the image, by the last row's score; empty without a defined one."""
        if not self.cases:
            return {}
        last = list(self.cases[self.panels[-1]].values())
        scores = np.array([case.score for case in last])
        if np.isnan(scores).all():
            return {}
        return {which: last[index].name for which, index in best_median_worst(scores).items()}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Overlays, recall curves, bars and points of every setting; what lacks its records is left out.

    tables: the long table (`shared.results.tables.frame`); spec: the report's job spec.
    """
    typed = parse_spec(spec)
    drawn: list[Figure | None] = []
    pictured: dict[str, int] = {}
    for setting in settings(typed, cell_records(spec), PicturedSetting):
        part = tables[(tables.experiment == setting.experiment) & (tables.setting == setting.name)]
        drawn += [bars(setting, part), boundary_recall(setting)]
        if pictured.get(setting.experiment, 0) < MOST_SETTINGS:
            pictures = [overlays(setting), points(setting)]
            pictured[setting.experiment] = pictured.get(setting.experiment, 0) + any(pictures)
            drawn += pictures
    return [figure for figure in drawn if figure is not None]


def overlays(setting: PicturedSetting, metrics: Sequence[str] = MASK_METRICS) -> Figure | None:
    """Image, masks of the rows, truth: for the last row's best, median and worst image of those that records keep.

    None where the experiment lists none of `metrics`.
    """
    if not setting.shows(*metrics) or not setting.chosen:
        return None
    last = setting.panels[-1]
    score = setting.rows[last][0].extras["score"]
    cases = []
    for which, name in setting.chosen.items():
        shown = setting.cases[last][name]
        panels: dict[str, Any] = {"image": None}
        panels |= {setting.labels[row]: _instances(setting.cases[row][name].found) for row in setting.panels}
        panels["truth"] = _instances(shown.truth)
        example = shown.example and (shown.example[0], _instances(shown.example[1]))
        cases.append(Case(f"{which}: {score} {shown.score:.2f} ({name})", shown.image, panels, example))
    several = max(int(case.truth.max(initial=0)) for case in setting.cases[last].values()) > 1
    seed = setting.rows[last][0].seed
    return overlay_figure(
        cases,
        f"Masks: {setting.title}",
        f"Best, median and worst by the {score} of {setting.labels[last]}, among {len(setting.cases[last])} images "
        f"chosen by their names (seed {seed}). Contours of masks{'' if several else ', dark outside'}; pictures are "
        "reduced for the report.",
        f"masks {setting.experiment} {setting.name}",
        by_instance=several,
    )


def _instances(labels: Array) -> Instances:
    return Instances(labels, np.zeros(int(labels.max(initial=0)), np.int64))


def boundary_recall(setting: Setting) -> Figure | None:
    """Share of objects whose Boundary IoU is above a threshold, one curve a row (HQ-SAM, arXiv:2306.01567, figure 4).

    Mean over seeds, with a band of one standard deviation. None unless the experiment lists such a share.
    """
    curves = {
        row: [r.extras["boundary_recall"] for r in kept if "boundary_recall" in r.extras]
        for row, kept in setting.rows.items()
    }
    curves = {row: kept for row, kept in curves.items() if kept}
    if not curves or not any(metric.startswith("BIoU_") for metric in setting.metrics):
        return None
    ends = []
    with drawing(6.6, 3.8) as (canvas, ax):
        for index, (row, kept) in enumerate(curves.items()):
            above, shares = kept[0]["above"], np.array([curve["share"] for curve in kept])
            mean, colour = shares.mean(0), COLOURS[index % len(COLOURS)]
            marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
            ax.plot(
                above, mean, color=colour, marker=marker, markevery=5, markersize=4.5, label=plain(setting.labels[row])
            )
            if len(shares) > 1:
                spread = shares.std(0, ddof=1)
                ax.fill_between(above, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            ends.append(f"{setting.labels[row]} {np.interp(0.9, above, mean):.2f}")
        ax.set_xlabel("Boundary IoU above")
        ax.set_ylabel("share of objects")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"boundary recall {setting.experiment} {setting.name}")
    return Figure(
        title=f"Objects above a Boundary IoU: {setting.title}",
        caption="Share of objects whose Boundary IoU is higher than the threshold, mean over seeds ± one standard "
        "deviation. The further to the right a curve stays up, the more masks are right to the pixel.",
        svg=svg,
        alt=f"Falling curves; share of objects with a Boundary IoU above 0.9: {', '.join(ends)}.",
    )


def bars(setting: Setting, part: "pandas.DataFrame") -> Figure | None:
    """AJI and PQ of each row with the spread over seeds; published values as diamonds. None without two rows."""
    measured = part[(part.status == "measured") & part.metric.isin(BAR_METRICS) & part.listed]
    rows = [row for row in setting.rows if (measured.row == row).any()][::-1]
    metrics = [metric for metric in BAR_METRICS if (measured.metric == metric).any()]
    if len(rows) < 2:
        return None
    height = 0.8 / len(metrics)
    with drawing(6.6, 1.3 + 0.45 * len(rows)) as (canvas, ax):
        for number, metric in enumerate(metrics):
            cells = measured[measured.metric == metric].set_index("row").reindex(rows)
            # The first metric of a row is on top.
            places = [place + 0.4 - (number + 0.5) * height for place in range(len(rows))]
            ax.barh(places, cells["mean"], height=0.92 * height, color=COLOURS[number], label=metric)
            ax.errorbar(cells["mean"], places, xerr=cells["std"].fillna(0.0), fmt="none", ecolor=INK, capsize=2.5)
            known = [(x, y) for x, y in zip(cells["published"], places, strict=True) if not math.isnan(x)]
            if known:
                look = {"marker": "D", "markersize": 5, "markerfacecolor": "none", "markeredgecolor": INK}
                label = f"{metric}, published" + ("" if bool(cells.comparable.dropna().all()) else " (other data)")
                ax.plot(*zip(*known, strict=True), linestyle="none", label=label, **look)
        ax.set_yticks(range(len(rows)), [plain(setting.labels[row]) for row in rows])
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, 1)
        ax.set_xlabel("more is better")
        handles, labels = ax.get_legend_handles_labels()  # published numbers have long ones: two to a line
        canvas.legend(handles, labels, ncols=2, loc="outside upper right", handlelength=1.2)
        svg = svg_of(canvas, f"bars {setting.experiment} {setting.name}")
    values = measured.set_index(["row", "metric"])["mean"]
    said = [f"{setting.labels[r]} " + " / ".join(f"{values.get((r, m), math.nan):.3f}" for m in metrics) for r in rows]
    return Figure(
        title=f"{' and '.join(metrics)}: {setting.title}",
        caption="Mean over seeds ± one standard deviation.",
        svg=svg,
        alt=f"Bar chart, {' / '.join(metrics)} of each row: {', '.join(said[::-1])}.",
    )


def points(setting: PicturedSetting) -> Figure | None:
    """Detected points over the median and the worst image: those that found a nucleus, false alarms, and nuclei that
    none found.

    Rows of the same detector with and without a filter show what the filter took away. None without points.
    """
    if not setting.shows(*POINT_METRICS) or not setting.chosen:
        return None
    names = list(dict.fromkeys(setting.chosen[which] for which in ("median", "worst")))
    rows = [row for row in setting.panels if all(setting.cases[row][name].points for name in names)]
    if not rows:
        return None
    side = min(3.2, 7.4 / len(rows))
    with drawing(side * len(rows), side * len(names) + 0.6, len(names), len(rows), squeeze=False) as (canvas, axes):
        for name, line in zip(names, axes, strict=True):
            for row, ax in zip(rows, line, strict=True):
                _draw_points(ax, setting.cases[row][name])
                ax.set_title(plain(setting.labels[row]) if name == names[0] else "")
        handles, labels = axes[0][0].get_legend_handles_labels()
        canvas.legend(handles, labels, ncols=len(labels), loc="outside lower center")
        svg = svg_of(canvas, f"points {setting.experiment} {setting.name}")
    said = [
        f"{setting.labels[row]} "
        + ", ".join(" / ".join(str(len(setting.cases[row][name].points[kind])) for kind in _POINTS) for name in names)
        for row in rows
    ]
    return Figure(
        title=f"Detected points: {setting.title}",
        caption=f"Images {' and '.join(names)} (seed {setting.rows[rows[-1]][0].seed}), the median and the worst by "
        f"the last row; true contours in white. Points that found a nucleus, false alarms, nuclei that none found.",
        svg=svg,
        alt=f"Points over images; found / false / missed: {'; '.join(said)}.",
    )


def _draw_points(ax: Any, case: ShownCase) -> None:
    ax.imshow(np.where(contour(case.truth)[..., None], np.uint8(255), case.image), interpolation="none")
    for kind, (marker, colour, label) in _POINTS.items():
        xy = case.points[kind]
        ax.scatter(xy[:, 0], xy[:, 1], s=18, marker=marker, color=colour, linewidths=1.3, label=label)
    ax.set_axis_off()
