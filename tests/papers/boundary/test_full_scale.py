"""The full configuration on a miniature of CIFAR-10 in its exact public layout; a scale of values cuts sizes."""

import hashlib
import json
import runpy

import pytest
import yaml

from shared.paths import ROOT

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
cifar = runpy.run_path(str(ROOT / "tests/e2e/test_full_scale.py"))

SHORT = {"options": {"epochs": 1}}
QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [4]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": {"cifar10_all_cnn": {"train": {"epochs": 2}}},
    "experiments": {
        "E1": {
            "rows": {
                **dict.fromkeys(("FT", "NegGrad", "RandomLabels", "BS", "BE"), SHORT),
                "Fisher": {"options": {"num": 20}},
                "Amnesiac": {"options": {"epochs": 2, "repair_epochs": 1}},
            }
        }
    },
}
ROWS = {
    "E1": ["Original", "Retrain", "FT", "NegGrad", "RandomLabels", "Fisher", "Amnesiac", "BS", "BE", "BS-matched"],
    "E4": ["BS+curvature", "BS+both"],
    "E5": ["BS", "BS-matched"],
}


@pytest.fixture
def miniature(tmp_path):
    """The project with the miniature as its CIFAR-10, found in a mirror and verified like the real one."""
    project = workplace["Project"](workplace["copy_project"](tmp_path / "project"))
    for room in (project.folder / "papers").glob("*/"):
        if room.name != "boundary":
            (room / "Snakefile").unlink(missing_ok=True)
    content = cifar["archive"]()
    (tmp_path / "mirror" / "cifar10").mkdir(parents=True)
    (tmp_path / "mirror" / "cifar10" / "cifar-10-python.tar.gz").write_bytes(content)
    manifest = project.folder / "data_manifests" / "cifar10.yaml"
    values = yaml.safe_load(manifest.read_text())
    values["files"][0] |= {"sha256": [hashlib.sha256(content).hexdigest()], "md5": [], "size": len(content)}
    values["images"] |= {"num_train": 5 * cifar["NUM_A_BATCH"], "num_test": cifar["NUM_A_BATCH"]}
    manifest.write_text(yaml.safe_dump(values))
    scale = project.folder / "papers" / "boundary" / "config" / "miniature.yaml"
    scale.write_text(yaml.safe_dump(MINIATURE))
    project.environment["DATA_MIRROR"] = str(tmp_path / "mirror")
    return project


def test_every_row_runs_on_the_public_layout(miniature):
    folder = "results/boundary/miniature"
    targets = {
        (experiment, row): f"{folder}/records/{experiment}/classwise/{row}/s4.json"
        for experiment, rows in ROWS.items()
        for row in rows
    }
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    for (experiment, _), target in targets.items():
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        values = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert {"RA", "FA", "TA", "TA_forget", "MIA", "RTE"} <= set(values)
        assert all(0 <= values[name] <= 100 for name in ("RA", "FA", "TA", "TA_forget", "MIA"))
        if experiment == "E5":
            assert {"neighbour_distance", "uniform_distance", "crossing_rate"} <= set(values)
    shrink = json.loads((miniature.folder / folder / "jobs/E1/classwise/BS/s4.json").read_text())
    assert shrink["options"]["attack_norm"] == "official"  # what made the published numbers
    assert shrink["task"]["train"]["select"] == "best_test"
    assert shrink["task"]["model"]["name"] == "all_cnn_half"
    assert shrink["task"]["original_seed"] == 2022
