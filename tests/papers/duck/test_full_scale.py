"""The full configuration on miniatures of CIFAR-10 and of torchvision's weights in their public layouts; a scale of
values cuts sizes."""

import hashlib
import json
import runpy

import pytest
import torch
import yaml

from shared.paths import ROOT

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
cifar = runpy.run_path(str(ROOT / "tests/e2e/test_full_scale.py"))

SHORT = {"epochs": 1, "batch": 32}
QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}
TRAIN = {"train": {"epochs": 2, "batch": 64}, "retrain": {"epochs": 2, "batch": 64}}
BASELINES = {row: {"options": SHORT} for row in ("FT", "NG", "RL", "BS", "BE")}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [4]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": {
        # four test images of a class are too few for the attack, which E2 runs
        "cifar10": {**TRAIN, "evaluate": {"attacks": []}},
        "cifar10_random": {**TRAIN, "forget": {"num": 50}, "evaluate": {"drop_last": 16}},
    },
    "experiments": {
        "E1": {"rows": {**BASELINES, "DUCK": {"options": {**SHORT, "low_batch": 64}}}},
        "E2": {"seeds": [4], "rows": {"DUCK": {"per_setting": {"cifar10": {**SHORT, "batch": 16}}}}},
        "E5": {
            "seeds": [4],
            "settings": {"cifar10": {"change": {"evaluate": {"shadows": {"num": 2, "train": {"epochs": 1}}}}}},
        },
    },
}
TARGETS = {
    "E1": ["Original", "Retrain", "FT", "NG", "RL", "BS", "BE", "DUCK"],
    "E2": ["Retrain", "RL", "DUCK"],
    "E5": ["Original"],
    "E6": ["as-described"],
}


def offer(project, mirror, name, content):
    """Put a file into the mirror, and its digest into the manifest that pins it."""
    manifest = project.folder / "data_manifests" / f"{name}.yaml"
    values = yaml.safe_load(manifest.read_text())
    file = values["files"][0]
    (mirror / name).mkdir(parents=True)
    (mirror / name / file["name"]).write_bytes(content)
    file |= {"sha256": [hashlib.sha256(content).hexdigest()], "md5": [], "size": len(content)}
    values["content"].pop("sha256", None)
    values["content"]["max_bytes"] = max(values["content"]["max_bytes"], len(content))
    if "images" in values:
        values["images"] |= {"num_train": 5 * cifar["NUM_A_BATCH"], "num_test": cifar["NUM_A_BATCH"]}
    manifest.write_text(yaml.safe_dump(values))


@pytest.fixture
def miniature(tmp_path):
    """The project with both miniatures in a mirror, verified like the real files."""
    import torchvision

    project = workplace["Project"](workplace["copy_project"](tmp_path / "project"))
    for room in (project.folder / "papers").glob("*/"):
        if room.name != "duck":
            (room / "Snakefile").unlink(missing_ok=True)
    offer(project, tmp_path / "mirror", "cifar10", cifar["archive"]())
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    offer(project, tmp_path / "mirror", "torchvision_resnet18", (tmp_path / "weights.pth").read_bytes())
    (project.folder / "papers" / "duck" / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    project.environment["DATA_MIRROR"] = str(tmp_path / "mirror")
    return project


def test_every_row_runs_on_the_public_layouts(miniature):
    folder = "results/duck/miniature"
    targets = {
        (experiment, row): f"{folder}/records/{experiment}/cifar10/{row}/s4.json"
        for experiment, rows in TARGETS.items()
        for row in rows
    }
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    values = {}
    for place, target in targets.items():
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        values[place] = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert all(0 <= values[place][name] <= 100 for name in ("RA", "FA", "TA"))
    assert all("TA_forget" in values["E1", row] for row in TARGETS["E1"])
    assert 0 <= values["E1", "DUCK"]["agreement"] <= 1
    assert all(0 <= values["E2", row]["MIA_f1"] <= 100 for row in TARGETS["E2"])
    assert 0 <= values["E5", "Original"]["MIA_lira"] <= 100
    duck = json.loads((miniature.folder / folder / "jobs/E1/cifar10/DUCK/s4.json").read_text())
    switches = ("low_phase", "reassign_first_epoch", "duck_append_bug", "duck_index_bug")
    assert all(duck["options"][name] is True for name in switches)  # what made the published numbers
    assert (duck["task"]["model"]["name"], duck["task"]["original_seed"]) == ("resnet18", 42)
    assert duck["task"]["train"]["init"] == "torchvision_resnet18"
    random = json.loads((miniature.folder / folder / "jobs/E2/cifar10/DUCK/s4.json").read_text())
    assert (random["options"]["drop_last"], random["options"]["stop_below"]) == (True, 88.72)
