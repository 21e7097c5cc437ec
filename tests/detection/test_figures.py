"""Figures of the detection track: for which experiments, and what their captions say."""

import numpy as np
import pytest

from shared.detection.figures import figures
from shared.results.records import Cost, Metric, Record, write_records
from shared.results.tables import build, frame
from shared.segmentation.evaluate.cases import shown


def record(experiment):
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 5:20] = 1
    cases = [shown(f"p{i}", i / 4, np.full((20, 30, 3), 90, np.uint8), labels, labels).packed() for i in range(4)]
    extras = {"score": "mask IoU", "cases": cases, "shown": 0.25}
    metrics = [Metric("AP_box", 40.0, "%", "higher"), Metric("parameters", 1.0, "M", "lower")]
    return Record("mimdet", "mini", experiment, "all", "MIMDet", 1, metrics, Cost(1.0, 0, 9.0, "cpu"), {}, extras)


@pytest.fixture
def spec(tmp_path):
    """E1 lists an average precision, E2 does not."""
    cells, experiments = [], {}
    for name, metric in (("E1", "AP_box"), ("E2", "parameters")):
        path = tmp_path / f"{name}.json"
        write_records(path, [record(name)])
        cells.append({"experiment": name, "setting": "all", "row": "MIMDet", "record": str(path)})
        experiments[name] = {
            "title": name,
            "metrics": [metric],
            "settings": {"all": {"label": "all tokens"}},
            "rows": {"MIMDet": {"label": "MIMDet"}},
            "seeds": [1],
        }
    metrics = [
        {"name": name, "unit": unit, "better": "higher"} for name, unit in (("AP_box", "%"), ("parameters", "M"))
    ]
    common = {"paper": "mimdet", "scale": "mini", "seeds": [1], "output": str(tmp_path)}
    return {**common, "metrics": metrics, "experiments": experiments, "cells": cells}


def test_experiments_with_an_average_precision_get_pictures_that_say_from_which_score(spec):
    (figure,) = figures(frame(build(spec).cells), spec)
    assert figure.title == "Masks: E1, all tokens"
    assert "shown from a score of 0.25 on" in figure.caption
    for words in ("best: mask IoU 0.75 (p3)", "worst: mask IoU 0.00 (p0)", ">MIMDet</text>", ">truth</text>"):
        assert words in figure.svg
