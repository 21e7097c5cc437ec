"""The full configuration on miniatures of HQSeg-44K's archives and of both checkpoints in their public layouts; a scale
of values cuts sizes."""

import io
import json
import runpy
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from papers.hq_sam.models import build_hq
from shared.paths import ROOT
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SamSize

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
globals().update({name: workplace[name] for name in ("template", "project")})

SIZE = {
    "image": 64,
    "encoder": {"kind": "vit", "patch": 16, "dim": 32, "depth": 3, "heads": 2, "window": 2, "global_blocks": [1, 2]},
    "width": 32,
    "heads": 2,
    "mlp": 32,
    "iou_hidden": 16,
}
QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}
SHORT = {"options": {"model": {"epochs": 2, "steps_per_epoch": 2, "batch": 4, "milestones": [1], "loss_points": 64}}}
TASKS = ("dis", "coift", "hrsod", "thin", "average")
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [42]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": {name: {"sam": {"size": SIZE}} for name in TASKS},
    "experiments": {
        "E1": {"rows": dict.fromkeys(("context", "HQ-decoder", "HQ-SAM"), SHORT)},
        "E3": {"rows": dict.fromkeys(("whole", "FT-decoder", "FT-token"), SHORT)},
        "E3-encoder": {"rows": {name: {"options": {"model": {**SHORT["options"]["model"]}}} for name in
                                ("LoRA", "adapters")}},
    },
}  # fmt: skip
# archive -> folder of images -> folder of masks
FOLDERS = {
    "DIS5K.zip": {"DIS5K/DIS-TR/im": "DIS5K/DIS-TR/gt", "DIS5K/DIS-VD/im": "DIS5K/DIS-VD/gt"},
    "cascade_psp.zip": {f"cascade_psp/{name}": f"cascade_psp/{name}" for name in
                        ("fss_all", "DUTS-TR", "DUTS-TE", "ecssd", "MSRA_10K")},
    "thin_object_detection.zip": {
        "thin_object_detection/ThinObject5K/images_train": "thin_object_detection/ThinObject5K/masks_train",
        "thin_object_detection/ThinObject5K/images_test": "thin_object_detection/ThinObject5K/masks_test",
        "thin_object_detection/COIFT/images": "thin_object_detection/COIFT/masks",
        "thin_object_detection/HRSOD/images": "thin_object_detection/HRSOD/masks_max255",
    },
}  # fmt: skip


def archive(folders, seed):
    """Two bright shapes a folder, of unlike sizes; soft masks; a mask without image in fss_all."""
    random, stream = np.random.default_rng(seed), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for images, masks in folders.items():
            for number in range(2):
                height, width = random.integers(50, 90, 2)
                mask = np.zeros((height, width), np.uint8)
                mask[10:35, 12:40], mask[10, 12:40] = 255, 100
                image = np.where(mask[..., None] > 128, 220, random.integers(0, 90, (height, width, 3)))
                for path, pixels in ((f"{images}/{number}.jpg", image), (f"{masks}/{number}.png", mask)):
                    packed.writestr(path, encoded(pixels.astype(np.uint8), path))
            if images.endswith("fss_all"):
                packed.writestr(f"{masks}/spare.png", encoded(mask, "spare.png"))
    return stream.getvalue()


def encoded(pixels, path):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG" if path.endswith("jpg") else "PNG")
    return stream.getvalue()


def weights(model):
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def miniature(project, tmp_path):
    """The project with everything in a mirror, verified like the real files."""
    size = SamSize.model_validate(SIZE)
    mirror = tmp_path / "mirror"
    project.offer(mirror, "hqseg_44k", [archive(folders, seed) for seed, folders in enumerate(FOLDERS.values())])
    sam, hq = build_sam(size, 1), build_hq(size, seed=2)
    hq.load_state_dict(sam.state_dict(), strict=False)
    project.offer(mirror, "sam_vit_l", [weights(sam)])
    project.offer(mirror, "sam_hq_vit_l", [weights(hq)])
    room = project.folder / "papers" / "hq_sam"
    (room / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (room / "Snakefile").write_text((ROOT / "papers" / "hq_sam" / "Snakefile").read_text())
    project.environment["DATA_MIRROR"] = str(mirror)
    return project


def test_tuned_adapted_and_released_models_run_on_the_public_layout(miniature):
    folder = "results/hq_sam/miniature/records"
    cells = [
        *(f"E1/{setting}/HQ-SAM" for setting in TASKS),
        *(f"E1/average/{row}" for row in ("SAM", "context")),
        *(f"E3/average/{row}" for row in ("whole", "FT-decoder", "FT-token")),
        *(f"E3-encoder/average/{row}" for row in ("LoRA", "adapters")),
        "E5/coift-10+5/SAM",
        "E7-released/average/HQ-SAM",
        "E7-released/average/HQ-SAM-sum",
        "E8-parts/dis/without-both",
    ]
    targets = {cell: f"{folder}/{cell}/s42.json" for cell in cells}
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    found = {}
    for cell, target in targets.items():
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        found[cell] = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert 0 <= found[cell]["mBIoU"] <= 100
        assert 0 <= found[cell]["mIoU"] <= 100
    four = [found[f"E1/{setting}/HQ-SAM"]["mIoU"] for setting in TASKS]
    assert four[4] == pytest.approx(np.mean(four[:4]))
    assert found["E1/average/SAM"]["mIoU"] != found["E7-released/average/HQ-SAM"]["mIoU"]
    job = json.loads((miniature.folder / folder.replace("records", "jobs") / "E1/dis/HQ-SAM/s42.json").read_text())
    assert job["options"]["model"]["jitter"] is True
    assert job["options"]["model"]["prompts"] == ["box", "points", "mask"]
    assert job["task"]["sam"]["checkpoint"] == "sam_vit_l"


def test_a_row_of_a_run_is_used_by_the_tool_and_saved(miniature):
    job = "results/hq_sam/miniature/jobs/E7-released/dis/HQ-SAM/s42.json"
    miniature.snakemake("--config", "scale=miniature", "--", job.replace("jobs", "records"))
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(miniature.folder / "own.png")
    tool = ("-m", "papers.hq_sam.predict", "own.png", "--box", "5,5,30,30")
    miniature.python(*tool, "--checkpoint", job, "--out", "a", "--save", "own.safetensors")
    miniature.python(*tool, "--checkpoint", "own.safetensors", "--out", "b")
    first, second = (json.loads((miniature.folder / name / "own.json").read_text()) for name in "ab")
    assert first == second
    assert first["annotations"][0]["segmentation"]["size"] == [40, 50]
