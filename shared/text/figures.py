"""Figures of the text track, after those of TOFU (arXiv:2401.06121): forget quality against utility, the numbers that
utility is made of, distribution of truth ratios, and what the models say.

Drawn for every setting of an experiment that lists `log10_forget_quality`, from the records' extras (`trajectory`,
`log_truth_ratio`, `answers`; `shared.text.run` makes them).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.results.figure import COLOURS, INK, MARKERS, Figure, Listing, drawing, plain, svg_of
from shared.results.gather import cell_records
from shared.results.records import Record
from shared.results.spec import ResultSpec, parse_spec
from shared.text.protocol import METHODS

if TYPE_CHECKING:
    import pandas

DRAWN_WITH = "log10_forget_quality"
SETS = {"retain": "retain set", "real_authors": "real authors", "world_facts": "world facts", "forget": "forget set"}
METRICS = {"probability": "probability", "rouge_l_recall": "ROUGE-L recall", "truth_ratio": "truth ratio"}
# What a reader may still see as one of many curves.
MAX_POINTS, NUM_QUESTIONS = 120, 4
# log R of a diverged model has no bound; beyond this the axis would show nothing else.
LARGEST_RATIO = 15.0
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Setting:
    """One setting: records of each row, one a seed, and how rows are called and look.

    target: row of the model before unlearning, None where there is none.
    """

    name: str
    title: str
    reference: str
    target: str | None
    rows: Mapping[str, Sequence[Record]]
    labels: Mapping[str, str]

    @property
    def unlearned(self) -> list[str]:
        """Rows that are neither the reference nor the target."""
        return [row for row in self.rows if row not in (self.reference, self.target)]

    def look(self, row: str) -> dict[str, Any]:
        """Colour, marker and legend entry of a row, the same in every figure of the setting."""
        if row == self.reference:
            return {"color": INK, "marker": "*", "label": plain(self.labels[row])}
        index = list(self.rows).index(row)
        marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        return {"color": COLOURS[index % len(COLOURS)], "marker": marker, "label": plain(self.labels[row])}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure | Listing]:
    """Trade-off, bars, distributions and answers of every setting; what lacks its records is left out.

    tables: not used, the figures are about single questions and epochs; spec: the report's job spec.
    """
    drawn: list[Figure | Listing | None] = []
    for setting in settings(parse_spec(spec), cell_records(spec)):
        drawn += [trade_off(setting), bars(setting), distributions(setting), answers(setting)]
    return [figure for figure in drawn if figure is not None]


def settings(spec: ResultSpec, records: Mapping[tuple[str, str, str], Sequence[Record]]) -> list[Setting]:
    """Settings to draw, with the rows that have records of this track."""
    found = []
    for experiment, table in spec.experiments.items():
        if DRAWN_WITH not in table.metrics:
            continue
        targets = [row for row, described in table.rows.items() if described.method == METHODS["finetuned"]]
        labels = {row: described.label or row for row, described in table.rows.items()}
        for name, described in table.settings.items():
            rows = {row: records.get((experiment, name, row), ()) for row in table.rows}
            rows = {row: kept for row, kept in rows.items() if kept and all(r.extras.get("trajectory") for r in kept)}
            if rows:
                title = f"{experiment}, {described.label or name}"
                target = next((row for row in targets if row in rows), None)
                found.append(Setting(f"{experiment} {name}", title, spec.reference or "", target, rows, labels))
    return found


def path_of(records: Sequence[Record]) -> list[tuple[float, float]]:
    """(model utility, log10 forget quality) after each evaluated epoch, means over the seeds that have it."""
    points: dict[float, list[tuple[float, float]]] = {}
    for record in records:
        for point in record.extras["trajectory"]:
            points.setdefault(point["epoch"], []).append((point["model_utility"], point["log10_forget_quality"]))
    # columns: one mean for utility, one for quality
    means = [
        [math.fsum(column) / len(column) for column in zip(*points[epoch], strict=True)] for epoch in sorted(points)
    ]
    return [(utility, quality) for utility, quality in means]


def trade_off(setting: Setting) -> Figure | None:
    """Forget quality against model utility, one path a method from the target model on. None without an unlearned row
    and the reference."""
    if not setting.unlearned or setting.reference not in setting.rows:
        return None
    start = path_of(setting.rows[setting.target])[-1:] if setting.target else []
    paths = {row: start + path_of(setting.rows[row]) for row in setting.unlearned}
    utility, quality = path_of(setting.rows[setting.reference])[-1]
    with drawing(6.6, 4.2) as (canvas, ax):
        ax.axhline(math.log10(SIGNIFICANT), color=INK, linewidth=0.8, linestyle=":", zorder=1)
        for row, path in paths.items():
            look = setting.look(row)
            ax.plot(*zip(*path, strict=True), color=look["color"], linewidth=1.0, alpha=0.6, zorder=2)
            sizes = [10 + 30 * (i + 1) / len(path) for i in range(len(path))][len(start) :]
            xs, ys = zip(*path[len(start) :], strict=True)
            ax.scatter(xs, ys, s=sizes, color=look["color"], marker=look["marker"], label=look["label"], zorder=3)
        for x, y in start:
            label = plain(setting.labels[setting.target or ""])
            ax.scatter([x], [y], s=46, facecolor="none", edgecolor=INK, marker="s", label=label, zorder=4)
        label = plain(setting.labels[setting.reference])
        ax.scatter([utility], [quality], s=150, color=INK, marker="*", label=label, zorder=5)
        ax.set_xlabel("model utility")
        ax.set_ylabel("forget quality, log10 of p")
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"trade-off {setting.name}")
    ends = ", ".join(f"{setting.labels[row]} ({path[-1][0]:.2f}, {path[-1][1]:.1f})" for row, path in paths.items())
    return Figure(
        title=f"Forget quality and utility: {setting.title}",
        caption="Each path starts at the model before unlearning (square); its marks grow with the epochs of "
        "unlearning, mean over seeds. The star is the retain model, the target. Above the dotted line (p = 0.05) the "
        "test does not tell a model's truth ratios from the retain model's; on the left nothing of use is left.",
        svg=svg,
        alt=f"Scatter plot with paths, (utility, log10 of forget quality) at their ends: {ends}.",
    )


def bars(setting: Setting) -> Figure | None:
    """The numbers that utility is made of, and those of the forget set: one panel a metric, one bar a row. None without
    an unlearned row."""
    rows = list(setting.rows)
    means = {row: _means(setting.rows[row]) for row in rows}
    sets = [name for name in SETS if any(f"probability_{name}" in values for values in means.values())]
    if not setting.unlearned or not sets:
        return None
    width = 0.86 / len(rows)
    with drawing(7.4, 6.4, len(METRICS), 1, sharex=True, sharey=True) as (canvas, axes):
        for ax, (metric, title) in zip(axes, METRICS.items(), strict=True):
            for index, row in enumerate(rows):
                look = setting.look(row)
                places = [i - 0.43 + (index + 0.5) * width for i in range(len(sets))]
                heights = [means[row].get(f"{metric}_{name}", 0.0) for name in sets]
                ax.bar(places, heights, width=0.92 * width, color=look["color"], label=look["label"])
            ax.set_ylabel(title)
            ax.grid(axis="x", visible=False)
        axes[0].set_ylim(0, 1)
        axes[-1].set_xticks(range(len(sets)), [SETS[name] for name in sets])
        axes[0].legend(ncols=5, loc="lower left", bbox_to_anchor=(0.0, 1.0), handlelength=1.0)
        svg = svg_of(canvas, f"bars {setting.name}")
    highest = ", ".join(f"{setting.labels[row]} {means[row].get('model_utility', 0.0):.2f}" for row in rows)
    known = "nine numbers" if len(sets) == len(SETS) else f"{3 * (len(sets) - 1)} numbers"
    return Figure(
        title=f"What utility is made of: {setting.title}",
        caption=f"Mean over seeds. Utility is the harmonic mean of the {known} that are not of the forget set: one "
        "that vanishes takes utility with it. On the forget set the retain model is the aim, not the smallest bar.",
        svg=svg,
        alt=f"Bar charts of probability, ROUGE-L recall and truth ratio; model utility is {highest}.",
    )


def _means(records: Sequence[Record]) -> dict[str, float]:
    names = {metric.name for record in records for metric in record.metrics}
    values = {name: [v for v in (record.metric(name) for record in records) if v is not None] for name in names}
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def distributions(setting: Setting) -> Figure | None:
    """Empirical distribution functions of the forget rows' log truth ratios, of one seed. None without an unlearned row
    and the reference."""
    if not setting.unlearned or setting.reference not in setting.rows:
        return None
    seed = setting.rows[setting.reference][0].seed
    chosen = {row: next((r for r in kept if r.seed == seed), None) for row, kept in setting.rows.items()}
    with drawing(6.6, 3.8) as (canvas, ax):
        for row, record in chosen.items():
            if record is None:
                continue
            x, y = steps(record.extras["log_truth_ratio"])
            look = setting.look(row)
            line = {"linewidth": 2.6, "zorder": 5} if row == setting.reference else {"linewidth": 1.2}
            dashes = "--" if row == setting.target else "-"
            ax.step(x, y, where="post", color=look["color"], linestyle=dashes, label=look["label"], **line)
        ax.set_xlabel("log of the truth ratio R, forget set")
        ax.set_ylabel("share of questions")
        ax.set_ylim(0, 1)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        svg = svg_of(canvas, f"distributions {setting.name}")
    reached = [(row, r.metric("ks_statistic")) for row, r in chosen.items() if r and row != setting.reference]
    gaps = ", ".join(f"{setting.labels[row]} {value:.2f}" for row, value in reached if value is not None)
    return Figure(
        title=f"Truth ratios: {setting.title}",
        caption=f"Share of forget questions with a truth ratio up to R (seed {seed}). Forget quality is the p-value of "
        "the largest vertical distance to the retain model's curve (thick). To the right of 0 the model finds wrong "
        f"answers likelier than the true one; values beyond ±{LARGEST_RATIO:g} are drawn at the edge.",
        svg=svg,
        alt=f"Empirical distribution functions; largest distances to the retain model: {gaps or 'not measured'}.",
    )


def steps(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """(x, y) of the empirical distribution function, drawn with few enough points."""
    ordered = sorted(max(-LARGEST_RATIO, min(LARGEST_RATIO, value)) for value in values)
    count = len(ordered)
    shown = sorted({round(i * (count - 1) / max(MAX_POINTS - 1, 1)) for i in range(MAX_POINTS)})
    return [ordered[0], *(ordered[i] for i in shown)], [0.0, *((i + 1) / count for i in shown)]


def answers(setting: Setting) -> Listing | None:
    """A few forget questions with the answers of every model, of one seed. None without an unlearned row and texts."""
    said = {row: kept[0].extras.get("answers") or [] for row, kept in setting.rows.items()}
    said = {row: texts for row, texts in said.items() if texts and "generated" in texts[0]}
    if not said or not setting.unlearned:
        return None
    asked = next(iter(said.values()))[:NUM_QUESTIONS]
    order = [row for row in (setting.target, setting.reference) if row in said]
    order += [row for row in said if row not in order]
    lines: list[list[str]] = []
    for number, question in enumerate(asked):
        lines.append([question.get("question", ""), "true answer", question.get("truth", "")])
        for row in order:
            if number < len(said[row]):
                lines.append(["", setting.labels[row], said[row][number]["generated"] or "(nothing)"])
    return Listing(
        title=f"Answers before and after: {setting.title}",
        caption=f"Greedy answers to the first {len(asked)} forget questions, seed "
        f"{next(iter(setting.rows.values()))[0].seed}. The first model is the one before unlearning; the "
        "retain model never saw these questions.",
        columns=["Question", "Model", "Answer"],
        rows=lines,
    )
