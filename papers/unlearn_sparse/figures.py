"""The paper's figures: gap to Retrain of dense and sparse models, l1-sparse, curves over sparsity, Trojan cleanse."""

import re
from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, INK, MARKERS, Figure, drawing, plain, svg_of

if TYPE_CHECKING:
    import pandas

METHODS = {"omp": "OMP", "imp": "IMP", "synflow": "SynFlow"}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Every figure whose cells are measured. tables: the long table of `shared.results.tables`."""
    measured = tables[tables.status == "measured"]
    drawn = [dense_and_sparse(measured, spec), l1_bars(measured, spec), pruning_curves(measured), trojan(measured)]
    return [figure for figure in drawn if figure is not None]


def dense_and_sparse(tables: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """Average gap of every unlearner on the dense (E1) and the sparse model (E2), one panel a scenario."""
    gaps = tables[tables.metric == "Avg. Gap"]
    rows = [row for row in spec["experiments"]["E2"]["rows"] if row != spec["reference"]]
    settings = [s for s in spec["experiments"]["E2"]["settings"] if set(rows) <= set(_of(gaps, "E2", s).row)]
    if not settings:
        return None
    with drawing(3.7 * len(settings), 2.8, 1, len(settings), squeeze=False) as (canvas, axes):
        for ax, setting in zip(axes[0], settings, strict=True):
            for index, (experiment, label) in enumerate((("E1", "dense"), ("E2", "sparse"))):
                part = _of(gaps, experiment, setting).set_index("row").reindex(rows)
                places = [place + 0.4 * index - 0.2 for place in range(len(rows))]
                errors = part["std"].fillna(0.0)
                ax.bar(
                    places, part["mean"], 0.38, yerr=errors, ecolor=INK, capsize=2, color=COLOURS[index], label=label
                )
            ax.set_xticks(range(len(rows)), [plain(row) for row in rows])
            ax.set_title(_scenario(spec, "E1", setting))
            ax.set_ylim(bottom=0)
        axes[0][0].set_ylabel("average gap to Retrain (points)")
        axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, "unlearn-sparse-dense-and-sparse")
    caption = (
        "Average gap (the paper's Disparity Ave.) between a method and Retrain of the same sparsity, with the dense "
        "model's hyper-parameters (mean ± standard deviation over seeds)."
    )
    return Figure(
        "Prune first, then unlearn", caption, svg, "Bars of the average gap of each method, dense and sparse."
    )


def l1_bars(tables: "pandas.DataFrame", spec: dict[str, Any]) -> Figure | None:
    """What the paper's radar shows: UA, MIA, RA, TA of Retrain, FT and l1-sparse, one panel a scenario."""
    metrics, rows = ["UA", "MIA", "RA", "TA"], ["Retrain", "FT", "l1-sparse"]
    settings = [s for s in spec["experiments"]["E3"]["settings"] if set(rows) <= set(_of(tables, "E3", s).row)]
    if not settings:
        return None
    with drawing(3.7 * len(settings), 2.8, 1, len(settings), squeeze=False, sharey=True) as (canvas, axes):
        for ax, setting in zip(axes[0], settings, strict=True):
            for index, row in enumerate(rows):
                part = _of(tables, "E3", setting)
                part = part[part.row == row].set_index("metric").reindex(metrics)
                places = [place + 0.27 * (index - 1) for place in range(len(metrics))]
                errors = part["std"].fillna(0.0)
                ax.bar(places, part["mean"], 0.25, yerr=errors, ecolor=INK, capsize=2, color=COLOURS[index], label=row)
            ax.set_xticks(range(len(metrics)), metrics)
            ax.set_title(_scenario(spec, "E3", setting))
            ax.set_ylim(0, 105)
        axes[0][0].set_ylabel("%")
        axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, "unlearn-sparse-l1")
    caption = "The numbers of the paper's radar figure as bars: the closer to Retrain, the better."
    return Figure("l1-sparse unlearning", caption, svg, "Bars of four metrics for Retrain, fine-tuning and l1-sparse.")


def pruning_curves(tables: "pandas.DataFrame") -> Figure | None:
    """Average gap of FT and accuracy of Retrain against sparsity, a line a pruning method (E4)."""
    part = tables[tables.experiment == "E4"]
    panels = [("FT", "Avg. Gap", "average gap of FT (points)"), ("Retrain", "TA", "test accuracy of Retrain (%)")]
    if part.setting.nunique() < 2:
        return None
    with drawing(7.2, 2.8, 1, 2) as (canvas, axes):
        for ax, (row, metric, label) in zip(axes, panels, strict=True):
            for (method, name), colour, marker in zip(METHODS.items(), COLOURS, MARKERS, strict=False):
                chosen = part[(part.setting == "dense") | part.setting.str.startswith(f"{method}-")]
                if chosen.setting.nunique() < 2:
                    continue
                _curve(ax, chosen[chosen.row == row], metric, color=colour, marker=marker, label=name)
            ax.set_xlabel("sparsity (% of convolution weights)")
            ax.set_ylabel(label)
        axes[-1].legend()
        svg = svg_of(canvas, "unlearn-sparse-pruning")
    caption = "Class 0 forgotten by fine-tuning on models of rising sparsity, and Retrain under the same masks."
    return Figure("Pruning method and sparsity", caption, svg, "Lines of gap and test accuracy against sparsity.")


def trojan(tables: "pandas.DataFrame") -> Figure | None:
    """Clean accuracy and attack success rate against sparsity, before and after unlearning (E5)."""
    part = tables[tables.experiment == "E5"]
    if part[part.metric == "ASR"].setting.nunique() < 2:
        return None
    with drawing(7.2, 2.8, 1, 2, sharey=True) as (canvas, axes):
        for ax, (metric, label) in zip(
            axes, {"TA": "clean accuracy (SA)", "ASR": "attack success rate"}.items(), strict=True
        ):
            for row, colour, marker in zip(part.row.unique(), COLOURS, MARKERS, strict=False):
                _curve(ax, part[part.row == row], metric, color=colour, marker=marker, label=plain(row))
            ax.set_title(label)
            ax.set_xlabel("sparsity (% of convolution weights)")
            ax.set_ylim(0, 105)
        axes[0].set_ylabel("%")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, "unlearn-sparse-trojan")
    caption = "A model with a backdoor before (Original) and after the poisoned images are unlearned."
    return Figure("Trojan cleanse", caption, svg, "Lines of clean accuracy and attack success rate against sparsity.")


def _scenario(spec: dict[str, Any], experiment: str, setting: str) -> str:
    return plain(spec["experiments"][experiment]["settings"][setting]["label"].removesuffix(", dense"))


def _of(tables: "pandas.DataFrame", experiment: str, setting: str) -> "pandas.DataFrame":
    return tables[(tables.experiment == experiment) & (tables.setting == setting)]


def sparsity_of(setting: str) -> float:
    """Share of pruned weights in the name of a setting of E4 or E5: `dense`, `omp-0.9`, `s90`."""
    if re.fullmatch(r"s\d+", setting):
        return int(setting[1:]) / 100
    return 0.0 if setting == "dense" else float(setting.rpartition("-")[2])


def _curve(ax: Any, rows: "pandas.DataFrame", metric: str, **style: Any) -> None:
    """A metric of one row against sparsity."""
    part = rows[rows.metric == metric]
    part = part.assign(level=[100 * sparsity_of(name) for name in part.setting]).sort_values("level")
    ax.errorbar(part.level, part["mean"], yerr=part["std"].fillna(0.0), capsize=2.5, **style)
