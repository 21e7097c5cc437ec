"""Figures of the classification track: gaps to the reference model, and forgetting against
membership attack.

Both follow SalUn's Table 1 (arXiv:2310.12508): four metrics, each judged by its distance to
Retrain.
"""

from typing import TYPE_CHECKING, Any

from shared.metrics.declared import DerivedSpec
from shared.results.figure import COLOURS, INK, MARKERS, Figure, drawing, plain, svg_of
from shared.results.spec import ResultSpec, parse_spec

if TYPE_CHECKING:
    import pandas

AVERAGE_GAP = "Avg. Gap"


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Gap bars and the UA/MIA plane for every setting of the experiments that show these metrics.

    tables: the long table (`shared.results.tables.frame`); spec: the report's job spec. Settings
    in which they were not measured are left out.
    """
    typed = parse_spec(spec)
    drawn = []
    for experiment, table in typed.experiments.items():
        for setting in table.settings:
            part = tables[(tables.experiment == experiment) & (tables.setting == setting)]
            if AVERAGE_GAP in table.metrics:
                drawn.append(gap_bars(part, typed, experiment, setting))
            if {"UA", "MIA"} <= set(table.metrics):
                drawn.append(plane(part, typed, experiment, setting))
    return [figure for figure in drawn if figure is not None]


def _names(spec: ResultSpec, experiment: str, setting: str) -> tuple[str, str, str]:
    table = spec.experiments[experiment]
    ours = table.settings[setting].label or setting
    return f"{experiment}, {ours}", ours, table.settings[setting].published or ""


def _label(spec: ResultSpec, experiment: str, row: str) -> str:
    return plain(spec.experiments[experiment].rows[row].label or row)


def gap_bars(part: "pandas.DataFrame", spec: ResultSpec, experiment: str, setting: str) -> Figure | None:
    """One bar a method: its average gap, split into the shares of the single gaps; published
    averages as diamonds.

    Returns None without two measured average gaps.
    """
    measured = part[part.status == "measured"]
    averages = measured[(measured.metric == AVERAGE_GAP) & (measured.row != spec.reference)]
    averages = averages.sort_values(["mean", "row"], ascending=[False, True])
    average = spec.metric(AVERAGE_GAP)
    parts = average.of if isinstance(average, DerivedSpec) else []
    gaps = [m for m in parts if (measured.metric == f"gap_{m}").any()]
    if len(averages) < 2 or len(gaps) < len(parts):
        return None
    title, ours, theirs = _names(spec, experiment, setting)
    rows = list(averages.row)
    comparable = bool(averages.comparable.all())
    with drawing(6.6, 1.1 + 0.4 * len(rows)) as (canvas, ax):
        left = [0.0] * len(rows)
        for metric, colour in zip(gaps, COLOURS, strict=False):
            values = measured[measured.metric == f"gap_{metric}"].set_index("row")["mean"]
            widths = [float(values[row]) / len(gaps) for row in rows]
            ax.barh(range(len(rows)), widths, left=left, height=0.62, color=colour, label=plain(metric))
            left = [start + width for start, width in zip(left, widths, strict=True)]
        # Shares add up to the average gap, so the spread belongs at the end of the whole bar.
        ax.errorbar(
            averages["mean"],
            range(len(rows)),
            xerr=averages["std"].fillna(0.0),
            fmt="none",
            ecolor=INK,
            elinewidth=1.1,
            capsize=2.5,
        )
        known = [(i, x) for i, x in enumerate(averages.published) if x == x]
        if known:
            label = "published" if comparable else "published (other data)"
            ax.plot(
                [x for _, x in known],
                [i for i, _ in known],
                linestyle="none",
                marker="D",
                markersize=5.5,
                markerfacecolor="none",
                markeredgecolor=INK,
                label=label,
            )
        ax.set_yticks(range(len(rows)), [_label(spec, experiment, row) for row in rows])
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(plain(f"average gap to {spec.reference} [{averages.unit.iloc[0] or '1'}], less is better"))
        ax.set_xlim(left=0)
        ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=1.2)
        svg = svg_of(canvas, f"gaps {experiment} {setting}")
    order = ", ".join(f"{row} {mean:.2f}" for row, mean in zip(rows[::-1], averages["mean"][::-1], strict=True))
    other = f" Diamonds are the published averages for {theirs}." if known else ""
    if known and not comparable:
        other += f" Ours are for {ours}: compare the order, not the lengths."
    return Figure(
        title=f"Gap to {spec.reference}: {title}",
        caption=f"Average gap of each method, split into the shares of {', '.join(gaps)}; bars ± "
        f"one standard deviation over seeds.{other}",
        svg=svg,
        alt=f"Bar chart of average gaps from best to worst: {order}.",
    )


def plane(part: "pandas.DataFrame", spec: ResultSpec, experiment: str, setting: str) -> Figure | None:
    """UA against MIA, one point a method with error bars; cross-hairs through the reference, which
    is the target.

    Hollow points are published numbers, drawn only if they are of the same data. None without both
    metrics.
    """
    points = {}
    measured = part[(part.status == "measured") & part.metric.isin(["UA", "MIA"])]
    for row, cells in measured.groupby("row", sort=False):
        by_metric = cells.set_index("metric")
        if {"UA", "MIA"} <= set(by_metric.index):
            points[str(row)] = by_metric.loc["UA"], by_metric.loc["MIA"]
    if spec.reference not in points or len(points) < 3:
        return None
    title, _, theirs = _names(spec, experiment, setting)
    has_published = False
    with drawing(6.6, 4.0) as (canvas, ax):
        target_x, target_y = points[spec.reference]
        ax.axvline(target_x["mean"], color=INK, linewidth=0.8, linestyle=":", zorder=1)
        ax.axhline(target_y["mean"], color=INK, linewidth=0.8, linestyle=":", zorder=1)
        others = [row for row in points if row != spec.reference]
        looks = {row: (COLOURS[i % 8], MARKERS[(i + i // 8) % 8], 6.0) for i, row in enumerate(others)}
        for row, (x, y) in points.items():
            colour, marker, size = looks.get(row, (INK, "*", 12.0))
            bars = [0.0 if cell["std"] != cell["std"] else float(cell["std"]) for cell in (x, y)]
            ax.errorbar(
                x["mean"],
                y["mean"],
                xerr=bars[0],
                yerr=bars[1],
                color=colour,
                marker=marker,
                markersize=size,
                linestyle="none",
                elinewidth=1.0,
                capsize=2,
                label=_label(spec, experiment, row),
            )
            if x["comparable"] and x["published"] == x["published"] and y["published"] == y["published"]:
                has_published = True
                ax.plot(
                    x["published"],
                    y["published"],
                    marker=marker,
                    markersize=size + 1,
                    markerfacecolor="none",
                    markeredgecolor=colour,
                    linestyle="none",
                )
        ax.set_xlabel(plain(f"UA [{target_x['unit']}]"))
        ax.set_ylabel(plain(f"MIA efficacy [{target_y['unit']}]"))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"plane {experiment} {setting}")
    place = ", ".join(f"{row} ({x['mean']:.1f}, {y['mean']:.1f})" for row, (x, y) in points.items())
    hollow = f" Hollow points are the published numbers for {theirs}." if has_published else ""
    return Figure(
        title=f"Forgetting and membership: {title}",
        caption="Unlearning accuracy against the membership attack's efficacy, ± one standard "
        f"deviation over seeds. The closer to {spec.reference} (star) the better: beyond it a "
        f"method forgets in a way that shows.{hollow}",
        svg=svg,
        alt=f"Scatter plot, (UA, MIA) of each method: {place}.",
    )
