"""The paper's figures: neighbours of the forgotten class, four accuracies, run time."""

from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, INK, Figure, drawing, plain, svg_of
from shared.results.gather import cell_records

if TYPE_CHECKING:
    import pandas

SETTING = "classwise"
ACCURACIES = {"RA": "D_r", "FA": "D_f", "TA": "test, other classes", "TA_forget": "test, the class"}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Each figure whose cells are measured. tables: the long table of `shared.results.tables`."""
    measured = tables[(tables.status == "measured") & (tables.setting == SETTING)]
    drawn = [
        accuracies(measured[measured.experiment == "E1"], spec),
        run_time(measured[measured.experiment == "E3"], spec),
        neighbours([r for r in cell_records(spec).get(("E5", SETTING, "BS"), []) if "retrain_histogram" in r.extras]),
    ]
    return [figure for figure in drawn if figure is not None]


def accuracies(part: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """Four bars a method: good forgetting has those of the class at 0 and the others as high as Retrain."""
    rows = [row for row in spec["experiments"]["E1"]["rows"] if (part.row == row).any()]
    if len(rows) < 2:
        return None
    with drawing(7.2, 3.2) as (canvas, ax):
        for index, (metric, label) in enumerate(ACCURACIES.items()):
            cells = part[part.metric == metric].set_index("row").reindex(rows)
            places = [position + 0.2 * (index - 1.5) for position in range(len(rows))]
            spread = cells["std"].fillna(0.0)
            ax.bar(places, cells["mean"], 0.19, yerr=spread, color=COLOURS[index], ecolor=INK, capsize=1.5, label=label)
        ax.set_xticks(range(len(rows)), [plain(row) for row in rows], rotation=25, ha="right")
        ax.set_ylabel("accuracy (%)")
        ax.set_ylim(0, 105)
        ax.grid(axis="x", visible=False)
        ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
        svg = svg_of(canvas, "boundary-accuracies")
    text = "Accuracy on the retained and the forgotten training data and on their test images"
    return Figure("Four accuracies", f"{text} (mean ± standard deviation over seeds).", svg, f"Bar chart: {text}.")


def run_time(part: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """Seconds of every method on a logarithmic scale, with the speed-up over Retrain written beside the bar."""
    seconds = part[part.metric == "seconds"].set_index("row")["mean"].sort_values(ascending=False)
    if len(seconds) < 2 or (seconds <= 0).any():
        return None
    speed = part[part.metric == "speed-up vs Retrain"].set_index("row")["mean"]
    with drawing(6.4, 0.8 + 0.34 * len(seconds)) as (canvas, ax):
        ax.barh(range(len(seconds)), seconds, 0.62, color=COLOURS[0])
        for place, (row, value) in enumerate(seconds.items()):
            if row in speed:
                ax.annotate(
                    f"{speed[row]:.1f}×", (value, place), xytext=(4, 0), textcoords="offset points", va="center"
                )
        ax.set_yticks(range(len(seconds)), [plain(str(row)) for row in seconds.index])
        ax.set_xscale("log")
        ax.set_xlabel("seconds of unlearning")
        ax.grid(axis="y", visible=False)
        svg = svg_of(canvas, "boundary-run-time")
    order = ", ".join(f"{row} {value:.3g} s" for row, value in seconds.items())
    return Figure(
        "Run time", "Seconds of unlearning; beside the bars Retrain's over the method's.", svg, f"Bars: {order}."
    )


def neighbours(records: list[Any]) -> Figure | None:
    """One panel a seed: where the attack sends the forgotten class, and where Retrain does."""
    shown = records[:5]
    if not shown:
        return None
    with drawing(2.0 * len(shown) + 0.8, 2.7, 1, len(shown), squeeze=False, sharey=True) as (canvas, axes):
        for ax, record in zip(axes[0], shown, strict=True):
            histograms = record.extras["neighbour_histogram"], record.extras["retrain_histogram"]
            for index, (counts, label) in enumerate(zip(histograms, ("neighbour", "Retrain"), strict=True)):
                places = [c + 0.4 * (index - 0.5) for c in range(len(counts))]
                ax.bar(places, [count / sum(counts) for count in counts], 0.38, color=COLOURS[index], label=label)
            ax.axhline(1 / (len(counts) - 1), color=INK, linestyle=":", label="uniform")
            ax.set_title(f"class {', '.join(map(str, record.extras['forgotten']))}, seed {record.seed}")
            ax.set_xlabel("predicted class")
            ax.set_xticks(range(len(counts)) if len(counts) <= 10 else [])
            ax.grid(axis="x", visible=False)
        axes[0][0].set_ylabel("share of D_f")
        axes[0][0].legend(fontsize=8)
        svg = svg_of(canvas, "boundary-neighbours")
    return Figure(
        "Neighbours of the forgotten class",
        "Share of the forgotten images that the one-step attack takes to each class, beside Retrain's predictions for "
        "them; the dotted line is the uniform distribution over the other classes.",
        svg,
        "Histograms of nearest classes and of Retrain's predictions on the forgotten class, a panel for each seed.",
    )
