"""SalUn's own figures: stability over mask sparsity, and over the share that is forgotten."""

from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, INK, MARKERS, Figure, drawing, plain, svg_of

if TYPE_CHECKING:
    import pandas

KINDS = {"gradient": "gradient mask (SalUn)", "random": "random mask"}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Both stability figures, each if its cells are measured. tables: the long table of `shared.results.tables`."""
    gaps = tables[(tables.metric == "Avg. Gap") & (tables.status == "measured")]
    drawn = [mask_sparsity(gaps[gaps.experiment == "E4"], spec), forget_share(gaps[gaps.experiment == "E1"], spec)]
    return [figure for figure in drawn if figure is not None]


def mask_sparsity(gaps: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """Average gap against the share of trainable weights, one panel a forget share; rows `<kind>-<keep>` of E4."""
    rows = gaps[gaps.row.str.match(r"(gradient|random)-[0-9.]+$")]
    settings = [name for name in spec["experiments"]["E4"]["settings"] if (rows.setting == name).any()]
    if not settings:
        return None
    with drawing(3.4 * len(settings), 2.9, 1, len(settings), squeeze=False, sharey=True) as (canvas, axes):
        for ax, setting in zip(axes[0], settings, strict=True):
            for (kind, label), colour, marker in zip(KINDS.items(), COLOURS, MARKERS, strict=False):
                part = rows[(rows.setting == setting) & rows.row.str.startswith(kind)]
                keeps = [float(row.rpartition("-")[2]) for row in part.row]
                ax.errorbar(
                    keeps,
                    part["mean"],
                    yerr=part["std"].fillna(0.0),
                    color=colour,
                    marker=marker,
                    capsize=2.5,
                    label=label,
                )
            unmasked = gaps[(gaps.setting == setting) & (gaps.row == "RL")]
            for value in unmasked["mean"]:
                ax.axhline(value, color=INK, linestyle=":", label="no mask (RL)")
            ax.set_title(plain(spec["experiments"]["E4"]["settings"][setting]["label"]))
            ax.set_xlabel("share of trainable weights q")
            ax.set_ylim(bottom=0)
        axes[0][0].set_ylabel("average gap to Retrain (points)")
        axes[0][-1].legend()
        svg = svg_of(canvas, "salun-mask-sparsity")
    return Figure(
        "Stability over mask sparsity",
        "Average gap to Retrain against the share of weights that may move, for the gradient mask and a random mask "
        "of the same size (mean ± standard deviation over seeds). The dotted line is random labelling without a mask, "
        "at its own learning rate.",
        svg,
        "Line chart of the average gap against the share of trainable weights, for gradient and random masks.",
    )


def forget_share(gaps: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """Average gap of every method at each forget share of Table 1."""
    settings = [name for name in spec["experiments"]["E1"]["settings"] if (gaps.setting == name).any()]
    rows = [row for row in spec["experiments"]["E1"]["rows"] if row != spec["reference"] and (gaps.row == row).any()]
    if len(settings) < 2 or not rows:
        return None
    with drawing(6.6, 3.4) as (canvas, ax):
        for index, row in enumerate(rows):
            part = gaps[gaps.row == row].set_index("setting").reindex(settings)
            ours = row == "SalUn"
            ax.errorbar(
                range(len(settings)),
                part["mean"],
                yerr=part["std"].fillna(0.0),
                capsize=2.5,
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                linewidth=2.6 if ours else 1.2,
                linestyle="-" if ours else "--",
                label=plain(row),
            )
        ax.set_xticks(
            range(len(settings)), [plain(spec["experiments"]["E1"]["settings"][s]["label"]) for s in settings]
        )
        ax.set_xlim(-0.2, len(settings) - 0.8)
        ax.set_ylabel("average gap to Retrain (points)")
        ax.set_ylim(bottom=0)
        ax.legend(ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, "salun-forget-share")
    return Figure(
        "Stability over the forgotten share",
        "Average gap to Retrain of every method of Table 1 at each forget share (mean ± standard deviation over "
        "seeds). A flat line low down is what the paper calls stable.",
        svg,
        "Line chart of each method's average gap at the two forget shares.",
    )
