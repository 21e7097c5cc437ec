"""The full configuration on a miniature of CIFAR-10 in its public layout: dense, prune, rewind, unlearn, Trojan."""

import hashlib
import json
import runpy
from pathlib import Path

import pytest
import yaml

from shared.paths import ROOT

_e2e = Path(__file__).parents[2] / "e2e"
_fixtures = runpy.run_path(str(_e2e / "conftest.py"))
globals().update({name: _fixtures[name] for name in ("template", "project")})
archive = runpy.run_path(str(_e2e / "test_full_scale.py"))["archive"]
NUM_A_BATCH = archive.__globals__["NUM_A_BATCH"] = 20  # ResNet-18 on the CPU: every image counts

pytestmark = pytest.mark.e2e

SHORT = {"epochs": 1, "batch": 32}
TRAIN = {"epochs": 2, "batch": 64, "milestones": [1]}
TASKS = ["cifar10_resnet18", "cifar10_trojan", "cifar10_vgg16", "cifar100_resnet18", "svhn_resnet18"]
REWIND = {"pruning": {"rewind_epoch": 1}}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [1]},
    "resources": {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0},
    "stage_resources": {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0},
    "tasks": {name: {"train": TRAIN, "retrain": TRAIN} for name in TASKS},
    "experiments": {
        "E1": {
            "rows": {
                "FT": {"options": SHORT},
                "GA": {"options": SHORT},
                "FF": {"options": {"num": 4, "batch": 4}},
                "IU": {"options": {"num": 4}},
            }
        },
        "E2": {"settings": {"random10": {"change": REWIND}, "classwise": {"change": REWIND}}},
        "E4": {
            "settings": {f"{m}-{s}": {"change": REWIND} for m in ("omp", "imp") for s in (0.5, 0.75, 0.9, 0.95, 0.99)}
        },
        "E5": {"settings": {f"s{s}": {"change": REWIND} for s in (75, 90, 95, 99)}},
        "E6-sparse": {
            "settings": {
                f"{data}-{s}": {"change": REWIND}
                for data in ("cifar100", "svhn", "vgg16")
                for s in ("classwise", "random10")
            }
        },
    },
}


@pytest.fixture
def miniature(project, tmp_path):
    """The project with the miniature as its CIFAR-10, found in a mirror and verified like the real one."""
    content = archive()
    (tmp_path / "mirror" / "cifar10").mkdir(parents=True)
    (tmp_path / "mirror" / "cifar10" / "cifar-10-python.tar.gz").write_bytes(content)
    manifest = project.folder / "data_manifests" / "cifar10.yaml"
    values = yaml.safe_load(manifest.read_text())
    values["files"][0] |= {"sha256": [hashlib.sha256(content).hexdigest()], "md5": [], "size": len(content)}
    values["images"] |= {"num_train": 5 * NUM_A_BATCH, "num_test": NUM_A_BATCH}
    manifest.write_text(yaml.safe_dump(values))
    room = project.folder / "papers" / "unlearn_sparse"
    (room / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (room / "Snakefile").write_text((ROOT / "papers" / "unlearn_sparse" / "Snakefile").read_text())
    project.environment["DATA_MIRROR"] = str(tmp_path / "mirror")
    return project


def test_the_sparse_half_of_the_main_table_and_the_trojan_run_on_the_public_layout(miniature):
    folder = "results/unlearn_sparse/miniature/records"
    rows = [f"E2/random10/{row}" for row in ("Retrain", "FT", "GA", "FF", "IU")]
    targets = [f"{folder}/{row}/s1.json" for row in (*rows, "E5/s0/Original")]
    miniature.snakemake("--config", "scale=miniature", "--", *targets)
    found = {}
    for target in targets:
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        found[target] = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert all(0 <= found[target][name] <= 100 for name in ("UA", "RA", "TA", "MIA"))
    *sparse, trojan = found.values()
    num = 11_159_232  # convolution weights of ResNet-18
    assert [values["sparsity"] for values in sparse] == pytest.approx([100 * round(0.95 * num) / num] * 5)
    assert all(0 <= values["MIA_privacy"] <= 100 for values in sparse)
    assert 0 <= trojan["ASR"] <= 100
    job = json.loads((miniature.folder / folder.replace("records", "jobs") / "E2/random10/FF/s1.json").read_text())
    assert job["options"]["gradients"] == "per_batch"
    assert job["options"]["reset_last_class"] is True
    assert job["task"]["forget"]["split_seed_bug"] is True
