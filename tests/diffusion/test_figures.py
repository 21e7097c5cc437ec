"""Figures of the diffusion track from records: grids on one axis, attacked prompts, intervals, rounds in words."""

from xml.etree import ElementTree

import pytest
import torch

from shared.diffusion.evaluate.pictures import pack
from shared.diffusion.figures import figures
from shared.results.records import Cost, Metric, Record, write_records
from shared.results.tables import build, frame

HOSTILE = '<script>alert("x")</script> $a_b$'


def images(number, labels, groups):
    values = torch.linspace(0, 1, number).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return pack(values, labels, groups)


def drawn_record(row, seed):
    groups = ["target"] * 2 + ["retained"] * 3
    extras = {"pictures": images(5, [f"p{i}" for i in range(5)], groups)}
    return Record("p", "mini", "E1", "s", row, seed, [Metric("UA_drawn", 90.0, "%", "higher")], cost(), {}, extras)


def attacked_record(row, seed):
    pictures = images(3, ["no attack", "attacked", "target"], ["target"] * 3)
    rounds = [
        {"time": None, "text": HOSTILE, "score": 0.25, "positive": False},
        {"time": 500, "text": "x a circle", "score": 0.75, "positive": True},
    ]
    prompts = [{"before": i == 0, "success": i < 3} for i in range(4)]
    extras = {"prompts": prompts, "attack": [{"pictures": pictures, "rounds": rounds}] * 3}
    return Record("p", "mini", "E1", "s", row, seed, [Metric("ASR", 75.0, "%", "lower")], cost(), {}, extras)


def cost():
    return Cost(1.0, 4, 100.0, "cpu")


def spec_of(folder, make, metric):
    cells = []
    for row in ("ESD", "UCE"):
        path = folder / f"{row}.json"
        write_records(path, [make(row, seed) for seed in (1, 2)])
        cells.append({"experiment": "E1", "setting": "s", "row": row, "record": str(path)})
    return {
        "paper": "p",
        "scale": "mini",
        "metrics": [{"name": metric, "unit": "%", "better": "higher"}],
        "experiments": {
            "E1": {
                "title": "Rows",
                "metrics": [metric],
                "settings": {"s": {"label": f"a {HOSTILE}"}},
                "rows": {"ESD": {"label": "ESD $x"}, "UCE": {}},
                "seeds": [1, 2],
            }
        },
        "cells": cells,
        "seeds": [1, 2],
        "output": str(folder),
    }


@pytest.fixture
def drawn(tmp_path):
    def make(record, metric):
        spec = spec_of(tmp_path, record, metric)
        table = frame(build(spec).cells)
        found = figures(table, spec)
        assert figures(table, spec) == found
        return found

    return make


def texts_and_images(figure):
    elements = list(ElementTree.fromstring(figure.svg).iter())
    texts = ["".join(e.itertext()).strip() for e in elements if e.tag.endswith("}text")]
    return texts, [e for e in elements if e.tag.endswith("}image")]


def test_a_grid_has_a_line_a_row_with_both_groups_named(drawn):
    (grid,) = drawn(drawn_record, "UA_drawn")
    texts, pictures = texts_and_images(grid)
    assert set(texts) == {"to be forgotten", "to be kept", "ESD $x", "UCE"}
    assert len(pictures) == 10
    places = {(round(float(e.get("x", 0))), e.get("y"), e.get("transform")) for e in pictures}
    assert len(places) == 10
    assert "<script" not in grid.svg.lower()


def test_an_attack_has_intervals_pictures_and_its_rounds(drawn):
    rates, attacked, rounds = drawn(attacked_record, "ASR")
    assert "8 prompts" in rates.caption
    texts, pictures = texts_and_images(attacked)
    assert [t for t in texts if t in ("no attack", "attacked", "target")] == ["no attack", "attacked", "target"] * 3
    assert len(pictures) == 18
    assert rounds.rows[0] == ["ESD $x", "plain", HOSTILE, "0.25"]
    assert rounds.rows[1] == ["", "500", "x a circle", "0.75 \u2714"]


def test_records_without_pictures_give_no_figure(tmp_path):
    def bare(row, seed):
        return Record("p", "mini", "E1", "s", row, seed, [Metric("UA_drawn", 1.0, "%", "higher")], cost(), {}, {})

    spec = spec_of(tmp_path, bare, "UA_drawn")
    assert figures(frame(build(spec).cells), spec) == []
