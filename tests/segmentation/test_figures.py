"""Figures of the segmentation track from records: which images are shown, means over seeds, extras that lack."""

import base64
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from shared.errors import RecordError
from shared.results.records import Cost, Metric, Record, write_records
from shared.results.settings import Setting, settings
from shared.results.spec import parse_spec
from shared.results.tables import build, frame
from shared.segmentation.evaluate.cases import shown
from shared.segmentation.figures import MOST_ROWS, MOST_SETTINGS, figures
from shared.segmentation.overlays import MOST_BYTES

HOSTILE = '<script>alert("x")</script> $a_b$'
NAMES = ("p0", "p1", "p2", "p3", "p4")
ABOVE = [round(0.02 * step, 2) for step in range(50)]
METRICS = ["mIoU", "mBIoU", "BIoU_90", "AJI", "PQ", "F1"]


def case(name, score):
    rng = np.random.default_rng(len(name))
    labels = np.zeros((40, 60), np.int32)
    labels[5:20, 5:25], labels[20:35, 30:50] = 1, 2
    points = {"hit": np.array([[14.0, 12.0]]), "false": np.array([[50.0, 5.0]]), "missed": np.array([[40.0, 27.0]])}
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    return shown(name, score, image, labels, np.roll(labels, 3, 1), points).packed()


def record(row, seed, setting="thin", scores=(0.1, 0.5, 0.9, 0.3, 0.7), extras=None):
    values = {"mIoU": 80.0, "mBIoU": 70.0, "BIoU_90": 30.0, "AJI": 0.5 + 0.1 * seed, "PQ": 0.4, "F1": 90.0}
    metrics = [Metric(name, value, "" if value < 1 else "%", "higher") for name, value in values.items()]
    if extras is None:
        share = [max(0.0, 1 - a * (1 + 0.05 * seed)) for a in ABOVE]
        cases = [case(name, score) for name, score in zip(NAMES, scores, strict=True)]
        extras = {"score": "AJI", "cases": cases, "boundary_recall": {"above": ABOVE, "share": share}}
    return Record("hq_sam", "mini", "E1", setting, row, seed, metrics, Cost(1.0, 4, 100.0, "cpu"), {}, extras)


def spec_of(folder, rows, metrics=METRICS, num_settings=1):
    """A job spec; rows: name -> records of its seeds, in every setting."""
    cells, names = [], ["thin", *(f"s{i}" for i in range(1, num_settings))]
    for number, (row, make) in enumerate(rows.items()):
        for setting in names:
            path = folder / f"{number}-{setting}.json"
            write_records(path, [make(row, seed, setting) for seed in (1, 2)])
            cells.append({"experiment": "E1", "setting": setting, "row": row, "record": str(path)})
    units = {name: "%" if name not in ("AJI", "PQ") else "" for name in METRICS}
    return {
        "paper": "hq_sam",
        "scale": "mini",
        "metrics": [{"name": name, "unit": unit, "better": "higher"} for name, unit in units.items()],
        "experiments": {
            "E1": {
                "title": "Rows",
                "metrics": metrics,
                "settings": {name: {"label": f"{name} {HOSTILE}"} for name in names},
                "rows": {row: {"label": f"{row} $x"} for row in rows},
                "seeds": [1, 2],
            }
        },
        "cells": cells,
        "seeds": [1, 2],
        "output": str(folder),
    }


def drawn(spec):
    return figures(frame(build(spec).cells), spec)


def titles(found):
    return [figure.title.split(":")[0] for figure in found]


@pytest.fixture
def spec(tmp_path):
    return spec_of(tmp_path, {"SAM": record, "HQ-SAM": record})


def test_every_figure_is_drawn_and_the_same_records_give_the_same_bytes(spec):
    found = drawn(spec)
    assert titles(found) == ["AJI and PQ", "Objects above a Boundary IoU", "Masks", "Detected points"]
    for figure in found:
        ElementTree.fromstring(figure.svg)
        assert "<script" not in figure.svg.lower()
    assert drawn(spec) == found
    assert "HQ-SAM $x 0.650 / 0.400" in found[0].alt
    # 1 - 0.9 * 1.05 and 1 - 0.9 * 1.1 for the two seeds
    assert "HQ-SAM $x 0.03" in found[1].alt
    assert found[3].alt.endswith("missed: SAM $x 1 / 1 / 1, 1 / 1 / 1; HQ-SAM $x 1 / 1 / 1, 1 / 1 / 1.")


def test_best_median_and_worst_are_those_of_the_last_row(tmp_path):
    def other(row, seed, setting):
        return record(row, seed, setting, (0.9, 0.2, 0.4, 0.3, 0.1))

    masks = drawn(spec_of(tmp_path, {"HQ-SAM": record, "SAM": other}))[2]
    texts = [element.text for element in ElementTree.fromstring(masks.svg).iter() if element.tag.endswith("text")]
    assert texts[:4] == ["image", "HQ-SAM $x", "SAM $x", "truth"]
    assert texts[4:] == ["best: AJI 0.90 (p0)", "median: AJI 0.30 (p3)", "worst: AJI 0.10 (p4)"]
    pictures = re.findall(r"base64,([^\"]+)", masks.svg)
    assert len(pictures) == 3
    assert all(len(base64.b64decode(picture)) <= MOST_BYTES for picture in pictures)


def test_many_rows_and_many_settings_stay_readable(tmp_path):
    rows = {f"r{i}": record for i in range(MOST_ROWS + 2)}
    found = drawn(spec_of(tmp_path, rows, ["PQ"], num_settings=MOST_SETTINGS + 1))
    masks = [figure for figure in found if figure.title.startswith("Masks")]
    assert len(masks) == MOST_SETTINGS
    assert len([figure for figure in found if figure.title.startswith("PQ")]) == MOST_SETTINGS + 1
    shown_rows = re.findall(r">(r\d) \$x<", masks[0].svg)
    assert shown_rows == ["r0", *(f"r{i}" for i in range(3, MOST_ROWS + 2))]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["mBIoU"], ["Masks"]),
        (["BIoU_90"], ["Objects above a Boundary IoU"]),
        (["PQ"], ["PQ", "Masks"]),
        (["F1"], ["Detected points"]),
        (["seconds"], []),
    ],
)
def test_only_what_an_experiment_lists_is_drawn(tmp_path, metrics, expected):
    found = drawn(spec_of(tmp_path, {"SAM": record, "HQ-SAM": record}, metrics))
    assert titles(found) == expected


def test_records_without_extras_leave_figures_out(tmp_path):
    def bare(row, seed, setting):
        return record(row, seed, setting, extras={})

    assert titles(drawn(spec_of(tmp_path, {"SAM": bare, "HQ-SAM": bare}))) == ["AJI and PQ"]
    assert titles(drawn(spec_of(tmp_path, {"SAM": bare}))) == []
    mixed = drawn(spec_of(tmp_path, {"SAM": bare, "HQ-SAM": record}))
    assert titles(mixed) == ["AJI and PQ", "Objects above a Boundary IoU", "Masks", "Detected points"]


def test_undefined_scores_and_other_images(tmp_path):
    def undefined(row, seed, setting):
        return record(row, seed, setting, (float("nan"),) * 5)

    assert "Masks" not in titles(drawn(spec_of(tmp_path, {"SAM": record, "HQ-SAM": undefined})))

    def other_images(row, seed, setting):
        changed = json.loads(json.dumps(record(row, seed, setting).extras))
        for number, one in enumerate(changed["cases"]):
            one["name"] = f"q{number}" if number else "p0"
        return record(row, seed, setting, extras=changed)

    spec = spec_of(tmp_path, {"SAM": record, "HQ-SAM": other_images})
    masks = next(figure for figure in drawn(spec) if figure.title.startswith("Masks"))
    assert re.findall(r"\((\w\d)\)", masks.svg) == ["p0"] * 3  # the only one that both rows have


def test_a_damaged_case_names_its_fault(tmp_path):
    def damaged(row, seed, setting):
        return record(row, seed, setting, extras={"score": "AJI", "cases": [{"name": "p0"}]})

    with pytest.raises(RecordError, match="case cannot be drawn"):
        drawn(spec_of(tmp_path, {"SAM": damaged, "HQ-SAM": damaged}))


def test_settings_without_records_are_left_out(spec):
    assert settings(parse_spec(spec), {}, Setting) == []
    one = {("E1", "thin", "SAM"): [record("SAM", 1)], ("E1", "thin", "HQ-SAM"): []}
    assert [list(setting.rows) for setting in settings(parse_spec(spec), one, Setting)] == [["SAM"]]
