"""SalUn's full configuration on a miniature of CIFAR-10 in its exact public layout; a scale of values cuts sizes."""

import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import yaml

from shared.paths import ROOT

pytestmark = pytest.mark.e2e

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NUM_A_BATCH = 40
SHORT = {"epochs": 1, "batch": 32}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [1]},
    "resources": {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0},
    "stage_resources": {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0},
    "tasks": {
        "cifar10_resnet18": {
            "train": {"epochs": 2, "batch": 64, "milestones": [1]},
            "retrain": {"epochs": 2, "batch": 64, "milestones": [1]},
        }
    },
    "experiments": {
        "E1": {
            "rows": {
                **{name: {"options": SHORT} for name in ("FT", "RL", "GA", "BE", "BS", "l1-sparse")},
                **{name: {"options": SHORT} for name in ("SalUn", "SalUn-soft")},
                "IU": {"options": {"num": 20}},
            }
        }
    },
}  # fmt: skip


def pickled_batch(seed: int) -> bytes:
    """A batch file: images are rows of red, green, blue planes."""
    random = np.random.RandomState(seed)
    labels = [i % 10 for i in range(NUM_A_BATCH)]
    data = random.randint(0, 256, (NUM_A_BATCH, 3072), dtype=np.uint8)
    data[:, :1024] //= 2
    data[:, :1024] += np.array(labels, np.uint8)[:, None] * 12  # the red plane tells the class
    content = {"batch_label": "miniature", "labels": labels, "data": data, "filenames": ["x.png"] * NUM_A_BATCH}
    return pickle.dumps(content, protocol=2)


def archive() -> bytes:
    """cifar-10-python.tar.gz with six small batches."""
    files = {f"data_batch_{i}": pickled_batch(i) for i in range(1, 6)} | {"test_batch": pickled_batch(6)}
    files["batches.meta"] = pickle.dumps({"label_names": LABELS, "num_cases_per_batch": NUM_A_BATCH}, protocol=2)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


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
    (project.folder / "papers" / "salun" / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (project.folder / "papers" / "salun" / "Snakefile").write_text(
        (ROOT / "papers" / "salun" / "Snakefile").read_text()
    )
    project.environment["DATA_MIRROR"] = str(tmp_path / "mirror")
    return project


def test_every_row_of_table_1_runs_on_the_public_layout(miniature):
    folder = "results/salun/miniature"
    rows = ["Retrain", "FT", "RL", "GA", "IU", "BE", "BS", "l1-sparse", "SalUn", "SalUn-soft"]
    targets = [f"{folder}/records/E1/random10/{row}/s1.json" for row in rows]
    miniature.snakemake("--config", "scale=miniature", "--", *targets)
    for target in targets:
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        values = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert {"UA", "RA", "TA", "MIA", "MIA_correctness", "MIA_probability", "RTE", "steps"} <= set(values)
        assert all(0 <= values[name] <= 100 for name in ("UA", "RA", "TA", "MIA"))
    salun = json.loads((miniature.folder / folder / "jobs/E1/random10/SalUn/s1.json").read_text())
    assert salun["options"]["mask_decay_leak"] is True  # what made the published numbers
    assert salun["task"]["forget"]["split_seed_bug"] is True
    assert salun["task"]["model"]["name"] == "resnet18_cifar"
