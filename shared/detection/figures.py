"""Figures of the detection track: detections over images, where an average precision is listed. Torch-free."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shared.results.figure import Figure
from shared.results.gather import cell_records
from shared.results.settings import settings
from shared.results.spec import parse_spec
from shared.segmentation.figures import MOST_SETTINGS, PicturedSetting, overlays

if TYPE_CHECKING:
    import pandas

PICTURED = ("AP_box", "AP_mask")


def figures(tables: "pandas.DataFrame", spec: dict[str, Any]) -> list[Figure]:
    """Image, detections of the rows, truth: best, median and worst image of the first settings of each experiment."""
    drawn: list[Figure] = []
    pictured: dict[str, int] = {}
    for setting in settings(parse_spec(spec), cell_records(spec), PicturedSetting):
        if not setting.shows(*PICTURED) or pictured.get(setting.experiment, 0) >= MOST_SETTINGS:
            continue
        figure = overlays(setting, PICTURED)
        if figure is not None:
            pictured[setting.experiment] = pictured.get(setting.experiment, 0) + 1
            drawn.append(replace(figure, caption=f"{figure.caption} {_threshold(setting)}"))
    return drawn


def _threshold(setting: PicturedSetting) -> str:
    """What a viewer must know of the detections in the pictures."""
    shown = setting.rows[setting.panels[-1]][0].extras["shown"]
    return f"Detections are shown from a score of {shown:g} on; a mask IoU of 1 is every object and nothing else."
