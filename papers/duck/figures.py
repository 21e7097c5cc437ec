"""The paper's figures: embeddings on the move, score against time, score against the number of removed classes."""

from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, INK, MARKERS, Figure, drawing, plain, svg_of
from shared.results.gather import cell_records

if TYPE_CHECKING:
    import pandas


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Each figure whose cells are measured. tables: the long table of `shared.results.tables`."""
    measured = tables[tables.status == "measured"]
    scores = measured[measured.metric == "AUS"]
    drawn = [removed_classes(scores[scores.experiment == "E3"], spec)]
    for setting in spec["experiments"]["E1"]["settings"]:
        drawn.append(score_against_time(measured[(measured.experiment == "E1") & (measured.setting == setting)], spec))
        records = cell_records(spec).get(("E1", setting, "DUCK"), [])
        drawn += [movement(record.extras["movement"], record.seed) for record in records[:1]]
    return [figure for figure in drawn if figure is not None]


def movement(points: dict[str, Any], seed: int) -> Figure:
    """Forgotten samples before and after, and the centroids. points: `papers.duck.method.movement`."""
    with drawing(7.4, 3.6, 1, 2, sharex=True, sharey=True) as (canvas, axes):
        for ax, moment, colour in zip(axes, ("before", "after"), COLOURS, strict=False):
            ax.scatter(*zip(*points[moment], strict=True), s=14, color=colour, alpha=0.7, label="forgotten samples")
            ax.scatter(*zip(*points["centroids"], strict=True), s=60, marker="X", color=INK, label="centroids")
            for label, place in zip(points["classes"], points["centroids"], strict=True):
                ax.annotate(str(label), place, xytext=(5, 4), textcoords="offset points", color=INK)
            ax.set_title(f"{moment} unlearning")
        axes[0].legend()
        svg = svg_of(canvas, f"duck movement {seed}")
    return Figure(
        "Embeddings of the forgotten class",
        f"Directions of the embeddings of D_f and of the centroids of the retained classes (numbers), in the plane of "
        f"their two principal components before unlearning; seed {seed}.",
        svg,
        "Two scatter plots: forgotten samples are a cluster of their own before, and among the centroids after.",
    )


def score_against_time(part: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """AUS against run time, one marker a method."""
    cells = part[part.metric.isin(["AUS", "RTE"])].pivot(index="row", columns="metric", values=["mean", "std"])
    rows = [row for row in spec["experiments"]["E1"]["rows"] if row != "Original" and row in cells.index]
    if len(rows) < 2 or not {"AUS", "RTE"} <= set(part.metric):
        return None
    setting = spec["experiments"]["E1"]["settings"][part.setting.iloc[0]]
    with drawing(6.6, 3.4) as (canvas, ax):
        for index, row in enumerate(rows):
            ax.errorbar(
                60 * cells["mean", "RTE"][row],
                cells["mean", "AUS"][row],
                yerr=cells["std", "AUS"].fillna(0.0)[row],
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=9 if row == "DUCK" else 6,
                capsize=2.5,
                linestyle="none",
                label=plain(spec["experiments"]["E1"]["rows"][row]["label"] or row),
            )
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [m * 10.0**power for power in range(-3, 6) for m in (1, 2, 5) if low <= m * 10.0**power <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("run time (s)")
        ax.set_ylabel("AUS")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"duck time {part.setting.iloc[0]}")
    return Figure(
        f"Score against time: {plain(setting['label'] or '')}",
        "Adaptive unlearning score of class removal against run time (mean ± standard deviation over seeds). Good "
        "methods are at the upper left.",
        svg,
        "Scatter plot of the unlearning score against run time, one marker a method.",
    )


def removed_classes(part: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """AUS against the share of removed classes; settings of E3 are called pct<share>."""
    rows = [row for row in spec["experiments"]["E3"]["rows"] if (part.row == row).any()]
    if part.setting.nunique() < 2:
        return None
    with drawing(6.0, 3.0) as (canvas, ax):
        for index, row in enumerate(rows):
            cells = part[part.row == row].assign(share=lambda c: c.setting.str[3:].astype(int)).sort_values("share")
            spread = cells["std"].fillna(0.0)
            style = {"color": COLOURS[index], "marker": MARKERS[index], "capsize": 2.5, "label": plain(row)}
            ax.errorbar(cells.share, cells["mean"], yerr=spread, **style)
        ax.set_xlabel("share of classes that are removed (%)")
        ax.set_ylabel("AUS")
        ax.legend()
        svg = svg_of(canvas, "duck removed classes")
    return Figure(
        "Removing several classes",
        "Adaptive unlearning score against the share of classes that are removed at once. Few retained classes are "
        "easily told apart, so that every method that forgets exceeds 1 (the original chooses among all classes).",
        svg,
        "Line chart of the unlearning score against the share of removed classes.",
    )
