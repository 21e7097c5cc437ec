"""The paper's figure 5: boundary IoU against the number of points; and the same against the boxes' noise (table 13).

Masks over images and figure 4 are figures of the track.
"""

from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, MARKERS, Figure, drawing, plain, svg_of

if TYPE_CHECKING:
    import pandas

# setting after its set's name -> tick
POINTS = {"1": "1", "3": "3", "5": "5", "5+5": "5 + 5 outside", "10": "10", "10+5": "10 + 5 outside"}
NOISES = {"noise0": "0", "noise02": "0.2", "noise04": "0.4"}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Each figure whose cells are measured. tables: the long table of `shared.results.tables`."""
    cells = tables[(tables.status == "measured") & (tables.metric == "mBIoU")]
    drawn = []
    for name in ("coift", "dis"):
        ticks = {f"{name}-{key}": tick for key, tick in POINTS.items()}
        title = spec["experiments"]["E1"]["settings"][name]["label"]
        drawn.append(curve(cells[cells.experiment == "E5"], spec, "E5", ticks, ("Points", title, "points of a prompt")))
    title = "true boxes that are moved and resized"
    drawn.append(curve(cells[cells.experiment == "E6"], spec, "E6", NOISES, ("Noise", title, "noise of the boxes")))
    return [figure for figure in drawn if figure is not None]


def curve(
    part: "pandas.DataFrame", spec: dict[str, Any], experiment: str, ticks: dict[str, str], words: tuple[str, str, str]
) -> Figure | None:
    """Boundary IoU of each row at each setting of `ticks`, published values as hollow marks; None below two settings.

    words: kind, title, label of the axis.
    """
    part = part[part.setting.isin(ticks)]
    if part.setting.nunique() < 2:
        return None
    places = {setting: place for place, setting in enumerate(ticks)}
    kind, title, axis = words
    said = []
    with drawing(6.0, 3.0) as (canvas, ax):
        for index, (row, described) in enumerate(spec["experiments"][experiment]["rows"].items()):
            cells = part[part.row == row].assign(place=lambda c: c.setting.map(places)).sort_values("place")
            style = {"color": COLOURS[index], "marker": MARKERS[index]}
            label = plain(described["label"])
            ax.errorbar(cells.place, cells["mean"], yerr=cells["std"].fillna(0.0), capsize=2.5, label=label, **style)
            known = cells[cells.published.notna()]
            if len(known):
                hollow = {"markerfacecolor": "none", "linestyle": ":", "label": f"{label}, published"}
                ax.plot(known.place, known.published, **style, **hollow)
            values = ", ".join(f"{ticks[s]}: {m:.1f}" for s, m in zip(cells.setting, cells["mean"], strict=True))
            said.append(f"{label} {values}")
        ax.set_xticks(list(places.values()), list(ticks.values()))
        ax.set_xlabel(axis)
        ax.set_ylabel("mean boundary IoU (%)")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"hq_sam {experiment} {next(iter(ticks))}")
    return Figure(
        f"{kind}: {plain(title)}",
        "Mean boundary IoU over seeds ± one standard deviation.",
        svg,
        f"Line chart of boundary IoU; {'; '.join(said)}.",
    )
