"""Figures of the diffusion track: images before and after erasing, success rates, attacked prompts.

Drawn from the records' extras (`shared.diffusion.evaluate`), for experiments that list a metric which the figure is
about. Torch-free.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.diffusion.attacks.interval import interval
from shared.diffusion.evaluate.pictures import GROUPS, Picture, unpack
from shared.results.figure import COLOURS, INK, Figure, Listing, drawing, plain, svg_of
from shared.results.gather import cell_records
from shared.results.records import Record
from shared.results.settings import Setting, settings
from shared.results.spec import parse_spec

if TYPE_CHECKING:
    import pandas

MOST_SETTINGS = 4  # of an experiment that are shown as pictures
MOST_PROMPTS = 2  # of a row that are shown round by round
DRAWN_METRICS = ("UA_drawn", "IRA", "FID", "FID_world", "FID_official_cast")
_CARD = 6.4  # inches of a figure that a report shows without shrinking it
_GROUP_NAMES = {"target": "to be forgotten", "retained": "to be kept"}


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure | Listing]:
    """Grids, intervals and attacked prompts; what lacks its records is left out.

    tables: the long table (`shared.results.tables.frame`); spec: the report's job spec.
    """
    found: list[Figure | Listing | None] = []
    pictured: dict[str, int] = {}
    every = settings(parse_spec(spec), cell_records(spec), Setting)
    for experiment in dict.fromkeys(setting.experiment for setting in every):
        found.append(success_rates([s for s in every if s.experiment == experiment]))
    for setting in every:
        if pictured.get(setting.experiment, 0) >= MOST_SETTINGS:
            continue
        parts = [grid(setting), attacked(setting), progress(setting)]
        pictured[setting.experiment] = pictured.get(setting.experiment, 0) + any(parts)
        found += parts
    return [figure for figure in found if figure is not None]


def grid(setting: Setting) -> Figure | None:
    """Images of the same prompts and seeds, a line a row of the table: what was to be forgotten, and the rest."""
    if not setting.shows(*DRAWN_METRICS):
        return None
    shown = {row: unpack(records[0].extras.get("pictures", [])) for row, records in setting.rows.items()}
    shown = {row: pictures for row, pictures in shown.items() if pictures}
    if not shown:
        return None
    seed = next(iter(setting.rows.values()))[0].seed
    columns = {name: max(sum(p.group == name for p in pictures) for pictures in shown.values()) for name in GROUPS}
    name = f"drawn {setting.experiment} {setting.name}"
    svg = _picture_grid({setting.labels[row]: pictures for row, pictures in shown.items()}, columns, name)
    return Figure(
        f"Drawn images: {setting.title}",
        "Left of the gap: images of what was to be forgotten; right of it: images to be kept. Every line draws the "
        f"same prompts from the same seeds (seed {seed}).",
        svg,
        f"Grid of drawn images of {', '.join(setting.labels[row] for row in shown)}",
    )


def _picture_grid(shown: Mapping[str, Sequence[Picture]], columns: Mapping[str, int], name: str) -> str:
    gap = 0.35 if all(columns.values()) else 0.0
    first = {"target": 0.0, "retained": columns["target"] + gap}
    lines = {
        label: [
            (first[group] + column, picture)
            for group in GROUPS
            for column, picture in enumerate(p for p in pictures if p.group == group)
        ]
        for label, pictures in shown.items()
    }
    heads = {first[group]: _GROUP_NAMES[group] for group in GROUPS if columns[group]}
    return _board(lines, heads, sum(columns.values()) + gap, name)


def _board(
    lines: Mapping[str, Sequence[tuple[float, Picture]]], heads: Mapping[float, str], width: float, name: str
) -> str:
    """Pictures in lines of a label each, at places from the left in units of a picture; heads: words above places.

    All on one axis: an axis for each picture would take most of a report's time.
    """
    inches = min(1.6 + 0.64 * width, 9.6)
    with drawing(inches, 0.3 + 0.66 * len(lines)) as (figure, axis):
        for line, pictures in enumerate(lines.values()):
            for place, picture in pictures:
                sides = (place + 0.04, place + 0.96, line + 0.96, line + 0.04)
                # "none": every picture keeps its own pixels; else all become one picture of 72 dots an inch
                axis.imshow(picture.image, interpolation="none", extent=sides)
        axis.set(xlim=(0, width), ylim=(len(lines), 0), aspect="equal")
        axis.set_xticks(list(heads), list(heads.values()), ha="left")
        axis.set_yticks([line + 0.5 for line in range(len(lines))], [plain(label) for label in lines])
        axis.tick_params(length=0, labelsize=8 * max(1, inches / _CARD), labeltop=True, labelbottom=False)
        axis.grid(False)
        axis.spines[["left", "bottom"]].set_visible(False)
        return svg_of(figure, name)


def success_rates(every: Sequence[Setting]) -> Figure | None:
    """Pre-attack and attack success of each row and setting, prompts of all seeds together, with Wilson's interval."""
    attacked = [s for s in every if s.shows("ASR")]
    bars = [
        (setting, row, _counts(records))
        for setting in attacked
        for row, records in setting.rows.items()
        if any(record.extras.get("prompts") for record in records)
    ]
    if not bars:
        return None
    experiment = attacked[0].experiment
    height = 0.9 + 0.24 * len(bars)
    with drawing(6.6, height) as (figure, axis):
        for line, (_, _, (before, after, total)) in enumerate(bars):
            for offset, count, colour in ((-0.16, before, COLOURS[6]), (0.16, after, COLOURS[5])):
                low, high = (100 * value for value in interval(count, total))
                rate = 100 * count / total
                axis.barh(line + offset, rate, height=0.3, color=colour, alpha=0.85)
                axis.plot([low, high], [line + offset] * 2, color=INK, linewidth=1)
        names = [plain(f"{s.labels[row]}, {_short(s)}" if len(attacked) > 1 else s.labels[row]) for s, row, _ in bars]
        axis.set(yticks=range(len(bars)), yticklabels=names, xlim=(0, 100), xlabel="prompts that show the concept (%)")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.legend(
            handles=[_patch(COLOURS[6], "no attack"), _patch(COLOURS[5], "attack")],
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
            fontsize=8,
        )
        svg = svg_of(figure, f"success {experiment}")
    totals = sorted({total for _, _, (_, _, total) in bars})
    return Figure(
        f"Attack success: {experiment}",
        f"Share of prompts whose image shows the concept, seeds taken together "
        f"({', '.join(map(str, totals))} prompts); lines are 95 % intervals (Wilson), which take prompts as "
        "independent.",
        svg,
        f"Bars of pre-attack and attack success rates of {experiment}",
    )


def _short(setting: Setting) -> str:
    return setting.title.partition(", ")[2] or setting.name


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _counts(records: Sequence[Record]) -> tuple[int, int, int]:
    """Prompts of all seeds that succeed before, and after; and all of them."""
    prompts = [prompt for record in records for prompt in record.extras.get("prompts", [])]
    return sum(p["before"] for p in prompts), sum(p["before"] or p["success"] for p in prompts), len(prompts)


def attacked(setting: Setting) -> Figure | None:
    """Images of the first attacked prompts: without attack, with the last prefix, and the target."""
    if not setting.shows("ASR"):
        return None
    shown = {row: records[0].extras.get("attack", []) for row, records in setting.rows.items()}
    lines = {
        setting.labels[row]: [picture for entry in entries for picture in unpack(entry["pictures"])]
        for row, entries in shown.items()
        if entries
    }
    if not lines:
        return None
    longest = max(lines.values(), key=len)
    placed = {label: list(enumerate(pictures)) for label, pictures in lines.items()}
    heads = {float(place): picture.label for place, picture in enumerate(longest)}
    svg = _board(placed, heads, len(longest), f"attacked {setting.experiment} {setting.name}")
    return Figure(
        f"Attacked prompts: {setting.title}",
        "Prompts of the first seed whose plain image does not show the concept, as far as there are any: without "
        "attack, with the last prefix that was tried, and the image that the original model draws (the target).",
        svg,
        f"Images of attacked prompts, {setting.title}",
    )


def progress(setting: Setting) -> Listing | None:
    """Rounds of the first prompts of each row: noise level, prompt, the detector's score."""
    if not setting.shows("ASR"):
        return None
    rows: list[list[str]] = []
    for row, records in setting.rows.items():
        for entry in records[0].extras.get("attack", [])[:MOST_PROMPTS]:
            for number, one in enumerate(entry["rounds"]):
                time = "plain" if number == 0 else ("" if one["time"] is None else str(one["time"]))
                name = setting.labels[row] if number == 0 else ""
                rows.append([name, time, one["text"], f"{one['score']:.2f}" + (" ✔" if one["positive"] else "")])
    if not rows:
        return None
    return Listing(
        f"Rounds of an attack: {setting.title}",
        "Each line is one drawn image: the noise level of the search before it, the prompt as drawn, the detector's "
        "score of the concept, and ✔ where it counts as a success (which ends the prompt).",
        ["row", "noise level", "prompt", "score"],
        rows,
    )
