"""A synthetic paper: the means and spreads of SalUn's Table 1 (arXiv:2310.12508) as five seeds of
records.

With published numbers as ours, every derived number is known from the paper itself.
"""

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.classification.protocol import DERIVED
from shared.results.published import HEADER
from shared.results.records import Cost, Metric, Record, write_records

SEEDS = [1, 2, 3, 4, 5]
METRICS = ["UA", "RA", "TA", "MIA"]
# setting -> row -> (UA, RA, TA, MIA), their spreads, Avg. Gap, RTE in minutes
TABLE_1: dict[str, dict[str, tuple[list[float], list[float], float, float]]] = {
    "random10": {
        "Retrain": ([5.24, 100.00, 94.26, 12.88], [0.69, 0.00, 0.02, 0.09], 0.0, 43.29),
        "FT": ([0.63, 99.88, 94.06, 2.70], [0.55, 0.08, 0.27, 0.01], 3.78, 2.37),
        "RL": ([7.61, 99.67, 92.83, 37.36], [0.31, 0.14, 0.38, 0.06], 7.15, 2.64),
        "GA": ([0.69, 99.50, 94.01, 1.70], [0.54, 0.38, 0.47, 0.01], 4.12, 0.13),
        "BS": ([1.78, 98.29, 92.69, 8.96], [2.52, 2.50, 2.99, 0.13], 2.67, 0.43),
        "SalUn": ([2.85, 99.62, 93.93, 14.39], [0.43, 0.12, 0.29, 0.82], 1.15, 2.66),
    },
    "random50": {
        "Retrain": ([7.91, 100.00, 91.72, 19.29], [0.11, 0.00, 0.31, 0.06], 0.0, 23.90),
        "FT": ([0.44, 99.96, 94.23, 2.15], [0.37, 0.03, 0.03, 0.01], 6.79, 1.31),
        "RL": ([4.80, 99.55, 91.31, 41.95], [0.84, 0.19, 0.27, 0.05], 6.65, 2.65),
        "GA": ([0.40, 99.61, 94.34, 1.22], [0.33, 0.32, 0.01, 0.00], 7.15, 0.66),
        "BS": ([9.76, 90.19, 83.71, 32.15], [0.48, 0.82, 0.93, 0.01], 8.13, 2.12),
        "SalUn": ([7.75, 94.28, 89.29, 16.99], [1.04, 1.01, 0.72, 0.71], 2.65, 2.68),
    },
}
PUBLISHED = {
    "random10": "CIFAR-10 ResNet-18 random 10%",
    "random50": "CIFAR-10 ResNet-18 random 50%",
}
# Standard deviation 1 with n - 1.
OFFSETS = [x / math.sqrt(2.5) for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]


class Case:
    """A results folder of one paper at one scale, its spec, and ways to damage it."""

    def __init__(self, root: Path, paper: str = "salun", scale: str = "full") -> None:
        self.root, self.paper, self.scale = root, paper, scale
        self.folder = root / "results" / paper / scale
        self.paper_folder = root / "papers" / paper
        self.paper_folder.mkdir(parents=True, exist_ok=True)
        self.published_csv = self.paper_folder / "published.csv"
        self.claims_yaml = self.paper_folder / "claims.yaml"
        self.write_published()
        self.claims_yaml.write_text("[]\n")
        self.spec: dict[str, Any] = {
            "kind": "spec",
            "paper": paper,
            "scale": scale,
            "title": "SalUn: gradient-based weight saliency",
            "track": "classification",
            "reference": "Retrain",
            "derived": [derived.model_dump() for derived in DERIVED],
            "metrics": [
                *({"name": m, "unit": "%", "better": "closest_to_retrain"} for m in METRICS),
                {"name": "RTE", "unit": "min", "better": "lower", "label": "Run time"},
            ],
            "experiments": {
                "E1": {
                    "title": "Table 1: random data forgetting",
                    "published_table": "Table 1",
                    "metrics": [*METRICS, "Avg. Gap", "RTE"],
                    "settings": {
                        s: {"label": PUBLISHED[s], "published": PUBLISHED[s]} for s in TABLE_1
                    },
                    "rows": {
                        row: {"label": row, "published": row, "options": {"lr": 0.01}}
                        for row in TABLE_1["random10"]
                    },
                    "seeds": SEEDS,
                }
            },
            "cells": [
                {"experiment": "E1", "setting": s, "row": r, "record": str(self.record(s, r)),
                 "error": str(self.record(s, r).with_suffix(".error.json"))}
                for s in TABLE_1 for r in TABLE_1[s]
            ],
            "seeds": SEEDS,
            "published_csv": str(self.published_csv),
            "claims_yaml": str(self.claims_yaml),
            "figures": ["shared.classification.figures:figures"],
            "deviations": ["Original model: last epoch instead of the best one"],
            "output": str(self.folder),
        }  # fmt: skip

    def record(self, setting: str, row: str) -> Path:
        return self.folder / "records" / "E1" / setting / row / "s1-5.json"

    def write_published(self, extra: list[list[Any]] = []) -> None:  # noqa: B006 (never changed)
        with self.published_csv.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(HEADER)
            for setting, rows in TABLE_1.items():
                for row, (means, spreads, gap, minutes) in rows.items():
                    start = ["Table 1", PUBLISHED[setting], row]
                    for metric, mean, spread in zip(METRICS, means, spreads, strict=True):
                        writer.writerow(
                            [
                                *start,
                                metric,
                                mean,
                                spread,
                                "%",
                                "closest_to_retrain",
                                "paper, Table 1",
                                "read",
                            ]
                        )
                    writer.writerow([*start, "Avg. Gap", gap, "", "%", "lower", "paper, Table 1", "recalled"])
                    writer.writerow([*start, "RTE", minutes, "", "min", "lower", "paper, Table 1", "read"])
            writer.writerows(extra)

    def write_record(self, setting: str, row: str, change: Callable[[str, float], float] | None = None) -> None:
        """Five seeds whose means and spreads are those of Table 1, `change`d by metric."""
        means, spreads, _, minutes = TABLE_1[setting][row]
        records = []
        for seed, offset in zip(SEEDS, OFFSETS, strict=True):
            metrics = []
            for metric, mean, spread in zip(METRICS, means, spreads, strict=True):
                value = mean + spread * offset
                metrics.append(
                    Metric(
                        metric,
                        change(metric, value) if change else value,
                        "%",
                        "closest_to_retrain",
                    )
                )
            metrics.append(Metric("RTE", minutes * 60, "s", "lower"))
            records.append(Record(
                self.paper, self.scale, "E1", setting, row, seed, metrics,
                Cost(minutes * 60, int(minutes * 100), 812.0, "cpu"),
                {"commit": "0123456789abcdef", "dirty": False,
                 "date": f"2026-01-0{seed}T10:00:00+00:00",
                 "versions": {"torch": "2.14.0"}, "data": {"cifar10": "ab" * 32}},
            ))  # fmt: skip
        path = self.record(setting, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_records(path, records)

    def write_all(self) -> "Case":
        for setting, rows in TABLE_1.items():
            for row in rows:
                self.write_record(setting, row)
        return self

    def fail(self, setting: str, row: str, message: str) -> None:
        """Replace a row's record by an error."""
        path = self.record(setting, row)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".error.json").write_text(json.dumps({"message": message, "log": "logs/row.log"}))

    def claims(self, *claims: dict[str, Any]) -> None:
        """Write claims.yaml (JSON is YAML)."""
        filled = [{"id": f"C{i}", "text": "a claim", "where": "Table 1", **c} for i, c in enumerate(claims, 1)]
        self.claims_yaml.write_text(json.dumps(filled))

    def run(self, *, draws: bool = False) -> None:
        """All result jobs; figures only where a test looks at them, they take most of the time."""
        from shared.results import claims, report, tables

        spec = self.spec if draws else {**self.spec, "figures": []}
        tables.run(spec)
        claims.run(spec)
        report.run(spec)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """The synthetic paper with every record written."""
    return Case(tmp_path).write_all()


@pytest.fixture
def new_case(tmp_path: Path) -> Callable[..., Case]:
    """Makes further papers or scales in the same folder."""
    return lambda paper="salun", scale="full": Case(tmp_path, paper, scale).write_all()


@pytest.fixture
def paper_mirror() -> Path:
    """Folder with the published.csv of all papers, if this checkout has one."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "papers"
    folders = [Path(os.environ["DATA_MIRROR"]).parent / "papers"] if "DATA_MIRROR" in os.environ else []
    for folder in [*folders, beside]:
        if folder.is_dir():
            return folder
    pytest.skip("no folder 'papers' beside DATA_MIRROR and no ../shared/papers")
