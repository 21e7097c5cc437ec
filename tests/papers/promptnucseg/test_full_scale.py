"""The full configuration on miniatures of PanNuke, CPM-17, SAM's and timm's weights in their public layouts; a scale of
values cuts sizes."""

import hashlib
import io
import json
import runpy
import zipfile

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save
from scipy.io import savemat
from skimage.io import imsave

from shared.config import load_config
from shared.paths import ROOT
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SamSize

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))

TISSUES = ["Breast", "Colon"]
QUICK = {"threads": 1, "memory_mb": 6000, "runtime_min": 10, "gpu": 0}
SIZE = SamSize(
    image=32,
    encoder={
        "kind": "vit",
        "patch": 8,
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "window": 2,
        "global_blocks": [1],
        "grid": 8,
    },
    width=16,
    heads=2,
    mlp=16,
    iou_hidden=16,
)
# Every step of the published augmentations, at sizes that a miniature image holds.
SHRUNK = {"size": {256: 32, 500: 40}, "smallest": {128: 16}, "largest": {256: 32}}


def shrunk(steps):
    return [{key: SHRUNK.get(key, {}).get(value, value) for key, value in step.items()} for step in steps]


def miniature_scale():
    """`base: full`: everything that is not named here, code paths included, is the paper's protocol."""
    experiments = load_config("promptnucseg", "full").experiments
    pannuke = experiments["E1"].rows["PromptNucSeg-H"].options
    base = experiments["E3"].rows["no-NP"]
    cpm17 = base.per_setting["cpm17"]
    brief = {"epochs": 1, "batch": 2}
    sam = {"size": SIZE.model_dump(mode="json")}
    small = {"kind": "small", "widths": [4, 4, 8, 8]}
    return {
        "base": "full",
        "seeds": {"test": [1]},
        "resources": QUICK,
        "stage_resources": QUICK,
        "tasks": {"pannuke_123": {"sam": sam}, "cpm17": {"sam": sam}},
        "experiments": {
            "E1": {
                "rows": {
                    "PromptNucSeg-H": {
                        "options": {
                            "window": 32,
                            "overlap": 8,
                            "prompter": {**brief, "width": 8, "augment": shrunk(pannuke["prompter"]["augment"])},
                            "segmentor": {
                                **brief,
                                "milestones": [1],
                                "select": {"first": 1},
                                "augment": shrunk(pannuke["segmentor"]["augment"]),
                            },
                        }
                    }
                }
            },
            "E3": {
                "rows": {
                    "no-NP": {
                        "options": {
                            "window": 32,
                            "overlap": 8,
                            "prompter": {**brief, "width": 8, "backbone": small},
                            "segmentor": {**brief, "augment": shrunk(base.options["segmentor"]["augment"])},
                        },
                        "per_setting": {
                            "cpm17": {
                                "prompter": {"augment": shrunk(cpm17["prompter"]["augment"])},
                                "segmentor": {"batch": 2, "milestones": [1]},
                            }
                        },
                    }
                }
            },
        },
    }


def picture(random, side):
    """A square picture and a label map of four discs."""
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int64)
    for number, (y, x) in enumerate([(9, 9), (9, 24), (24, 9), (25, 26)], 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= 20] = number
    image = np.where(labels[..., None] > 0, (120, 60, 150), (220, 180, 210)) + random.integers(-20, 20, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()


def pannuke_fold(number):
    """fold_<n>.zip: images (N, 32, 32, 3) float64, masks (N, 32, 32, 6), one channel a class, tissue names."""
    random = np.random.default_rng(number)
    images, masks = [], []
    for _ in range(4):
        image, labels = picture(random, 32)
        channels = np.zeros((32, 32, 6))
        for nucleus in range(1, 5):
            channels[labels == nucleus, nucleus - 1] = nucleus
        channels[..., 5] = labels == 0
        images.append(image.astype(np.float64))
        masks.append(channels)
    folder, inner = f"Fold {number}", f"fold{number}"
    return zipped(
        {
            f"{folder}/images/{inner}/images.npy": npy(np.stack(images)),
            f"{folder}/images/{inner}/types.npy": npy(np.array(TISSUES * 2)),
            f"{folder}/masks/{inner}/masks.npy": npy(np.stack(masks)),
            f"{folder}/README.md": b"not kept",
        }
    )


def cpm17(folder):
    """cpm17.zip: PNG images and .mat label maps of training and test."""
    random = np.random.default_rng(17)
    files = {}
    for part in ("train", "test"):
        for index in range(3):
            image, labels = picture(random, 45)
            stream = io.BytesIO()
            savemat(stream, {"inst_map": labels.astype(np.float64)})
            imsave(folder / "image.png", image, check_contrast=False)
            files[f"cpm17/{part}/Images/image_{index:02d}.png"] = (folder / "image.png").read_bytes()
            files[f"cpm17/{part}/Labels/image_{index:02d}.mat"] = stream.getvalue()
    return zipped(files)


def sam_weights():
    stream = io.BytesIO()
    torch.save(build_sam(SIZE, 3).state_dict(), stream)
    return stream.getvalue()


def convnext_weights():
    """model.safetensors of timm's classifier, at its real size."""
    from timm import create_model

    return save({name: value.half().float() for name, value in create_model("convnext_small").state_dict().items()})


def offer(project, mirror, name, contents):
    """Put files into the mirror, and their digests into the manifest that pins them."""
    manifest = project.folder / "data_manifests" / f"{name}.yaml"
    values = yaml.safe_load(manifest.read_text())
    (mirror / name).mkdir(parents=True)
    for file, content in zip(values["files"], contents, strict=True):
        (mirror / name / file["name"]).write_bytes(content)
        file |= {"sha256": [hashlib.sha256(content).hexdigest()], "md5": [], "size": len(content)}
    values["content"] = {"max_bytes": 1 << 29}
    manifest.write_text(yaml.safe_dump(values))


@pytest.fixture
def project(tmp_path):
    """The project with the miniatures in a mirror, verified like the real files."""
    project = workplace["Project"](workplace["copy_project"](tmp_path / "project"))
    for room in (project.folder / "papers").glob("*/"):
        if room.name != "promptnucseg":
            (room / "Snakefile").unlink(missing_ok=True)
    mirror = tmp_path / "mirror"
    offer(project, mirror, "pannuke", [pannuke_fold(number) for number in (1, 2, 3)])
    offer(project, mirror, "cpm17", [cpm17(tmp_path)])
    offer(project, mirror, "sam_vit_h", [sam_weights()])
    offer(project, mirror, "timm_convnext_small", [convnext_weights()])
    scale = project.folder / "papers" / "promptnucseg" / "config" / "miniature.yaml"
    scale.write_text(yaml.safe_dump(miniature_scale()))
    project.environment["DATA_MIRROR"] = str(mirror)
    return project


def test_pannuke_and_cpm17_run_on_their_public_layouts(project):
    folder = "results/promptnucseg/miniature"
    cells = ["E1/pannuke_123/PromptNucSeg-H", "E3/cpm17/Otsu", "E4/cpm17/SAM", "E4/cpm17/FT", "E3/cpm17/PromptNucSeg-H"]
    targets = [f"{folder}/records/{cell}/s1.json" for cell in cells]
    project.snakemake("--config", "scale=miniature", "--", *targets)
    found = {}
    for target in targets:
        record = json.loads((project.folder / target).read_text())["records"][0]
        found[target.split("records/")[1]] = {metric["name"]: metric["value"] for metric in record["metrics"]}
    pannuke, *others = found.values()
    assert {"bPQ", "mPQ", "class_F1", "PQ_Neoplastic", "PQ_Dead", "kept_points"} <= set(pannuke)
    assert all(0 <= values["AJI"] <= 1 for values in others)
    assert found["E3/cpm17/Otsu/s1.json"]["F1"] == 100  # dark discs on a bright ground
    assert found["E4/cpm17/SAM/s1.json"]["train_minutes"] > 0  # its points are learnt
    job = json.loads((project.folder / folder / "jobs/E3/cpm17/PromptNucSeg-H/s1.json").read_text())
    assert job["options"]["both"] is True  # with negative points, and once more without
    assert job["options"]["segmentor"]["num_negatives"] == 1
    assert job["options"]["prompter"]["mask_head"] == "released"  # what made the published numbers
