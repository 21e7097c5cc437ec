"""The full configuration on miniatures of COCO-20i, ADE20K, COCO, LVIS, FSS-1000 and DAVIS in their public layouts; a
scale of values cuts sizes."""

import io
import json
import pickle
import runpy
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.paths import ROOT

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
globals().update({name: workplace[name] for name in ("template", "project")})

QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}
BACKBONE = {"name": "small_vit", "weights": None, "image": 64}
SHORT = {
    "backbone": BACKBONE,
    "text": {"clip": None, "dim": 8},
    "size": {"width": 32, "heads": 2, "mlp": 32, "iou_hidden": 16, "strides": [2, 2]},
    "epochs": 2,
    "steps_per_epoch": 2,
    "batch": 4,
    "milestones": [1],
    "points": 64,
}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [42]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": {"fold0": {"evaluate": {"draw": {"number": 4}}}},
    "experiments": {
        "E2": {"rows": {"strict": {"options": {"decoder": SHORT}}}},
        "E4": {
            "rows": {
                "all": {"options": {"decoder": SHORT}},
                "thresholded": {"options": {"backbone": BACKBONE, "episodes": 2}},
            }
        },
    },
}


def encoded(pixels, path):
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG" if path.endswith("jpg") else "PNG")
    return stream.getvalue()


def scene(seed):
    """An image (60, 80, 3) and a map with two bright things, 1 and 2."""
    random = np.random.default_rng(seed)
    labels = np.zeros((60, 80), np.uint8)
    x = int(random.integers(4, 20))
    labels[8:30, x : x + 22], labels[36:56, x + 15 : x + 45] = 1, 2
    image = random.integers(0, 80, (60, 80, 3))
    image[labels == 1, 0], image[labels == 2, 2] = 220, 220
    return image, labels


def packed(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return stream.getvalue()


def coco_20i():
    """Four images, which show classes 0 and 1: of fold 0 the class 1 is to train on and 0 to test on."""
    names = [f"train2014/COCO_train2014_{n:012d}.jpg" for n in range(4)]
    files = {}
    for seed, name in enumerate(names):
        image, labels = scene(seed)
        files |= {name: encoded(image, name), f"annotations/{name[:-3]}png": encoded(labels, "x.png")}
    lists = {"trn/all": [0, 1], "trn/fold0": [1], "val/fold0": [0]}
    for name, classes in lists.items():
        files[f"splits/{name}.pkl"] = pickle.dumps(dict.fromkeys(classes, names), protocol=2)
    return packed(files)


def ade20k():
    files = {"classes.txt": "\n".join(f"thing {n}" for n in range(1, 151))}
    for seed in range(3):
        image, labels = scene(10 + seed)
        files[f"images/training/ADE_train_{seed}.jpg"] = encoded(image, "x.jpg")
        files[f"annotations/training/ADE_train_{seed}.png"] = encoded(labels, "x.png")
    return packed(files)


def annotated(lvis):
    """A COCO or LVIS document of the images 1 and 2, and image 3 without an object."""
    images, annotations = [], []
    for number in (1, 2, 3):
        name = f"{number:012d}.jpg"
        entry = {"coco_url": f"http://images/train2017/{name}"} if lvis else {"file_name": name}
        images.append({"id": number, "height": 60, "width": 80, **entry})
        for thing in (1, 2) if number < 3 else ():
            rows, columns = np.nonzero(scene(20 + number)[1] == thing)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            x0, y0, x1, y1 = map(int, box)
            polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            own = {"id": 10 * number + thing, "image_id": number, "category_id": thing, "iscrowd": 0}
            annotations.append({**own, "segmentation": polygon, "area": 440, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    categories = [{"id": n, "name": f"thing {n}"} for n in (1, 2)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def coco_2017():
    """Training images, validation images, annotations."""
    files = {f"train2017/{n:012d}.jpg": encoded(scene(20 + n)[0], "x.jpg") for n in (1, 2, 3)}
    texts = {f"annotations/instances_{part}2017.json": annotated(False) for part in ("train", "val")}
    return [packed(files), packed({"val2017/000000000009.jpg": files["train2017/000000000001.jpg"]}), packed(texts)]


def fss_1000():
    files = {f"splits/fss/{part}.txt": "fox\nbee" for part in ("trn", "val", "test")}
    for thing, name in ((1, "fox"), (2, "bee")):
        for number in range(1, 4):
            image, labels = scene(40 + number)
            files[f"FSS-1000/{name}/{number}.jpg"] = encoded(image, "x.jpg")
            files[f"FSS-1000/{name}/{number}.png"] = encoded(255 * (labels == thing), "x.png")
    return packed(files)


def davis_2017():
    files = {f"DAVIS/ImageSets/2017/{part}.txt": "walk\n" for part in ("train", "val")}
    image, labels = scene(60)
    for time in range(4):
        moved = f"480p/walk/{time:05d}"
        files[f"DAVIS/JPEGImages/{moved}.jpg"] = encoded(np.roll(image, 2 * time, 1), "x.jpg")
        files[f"DAVIS/Annotations/{moved}.png"] = encoded(np.roll(labels, 2 * time, 1), "x.png")
    return packed(files)


@pytest.fixture
def miniature(project, tmp_path):
    """The project with everything in a mirror, verified like the real files."""
    mirror = tmp_path / "mirror"
    project.offer(mirror, "coco_20i", [coco_20i()])
    project.offer(mirror, "ade20k", [ade20k()])
    project.offer(mirror, "coco_2017", coco_2017())
    project.offer(mirror, "lvis_v1_train", [packed({"lvis_v1_train.json": annotated(True)})])
    project.offer(mirror, "fss_1000", [fss_1000()])
    project.offer(mirror, "davis_2017", [davis_2017()])
    room = project.folder / "papers" / "segic"
    (room / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (room / "Snakefile").write_text((ROOT / "papers" / "segic" / "Snakefile").read_text())
    project.environment["DATA_MIRROR"] = str(mirror)
    return project


def test_training_and_evaluation_run_on_the_public_layouts_and_the_tool_takes_the_row(miniature):
    folder = "results/segic/miniature/records"
    # a backbone without weights is a random one, so the row `all` is the row `random` and is computed once
    cells = {
        "E2/fold0/strict": "mIoU",
        "E4/fss/random": "mIoU",
        "E4/fss/none": "mIoU",
        "E4/fss/thresholded": "mIoU",
        "E4-video/davis/random": "J",
    }
    targets = {cell: f"{folder}/{cell}/s42.json" for cell in cells}
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    for cell, metric in cells.items():
        record = json.loads((miniature.folder / targets[cell]).read_text())["records"][0]
        found = {entry["name"]: entry["value"] for entry in record["metrics"]}
        assert 0 <= found[metric] <= 100
        assert found.get("changed frozen parts", 0) == 0
    job = targets["E4/fss/random"].replace("records", "jobs")
    options = json.loads((miniature.folder / job).read_text())["options"]["decoder"]
    assert options["augment"] == "jitter"
    assert options["semantic"] == ["coco", "ade"]
    assert options["instances"] == ["coco_instances", "lvis"]
    assert options["reversion"] is True
    assert options["negatives"] == 0.25
    image, labels = scene(70)
    for name, pixels in (("a.png", image), ("mask.png", 255 * (labels == 1)), ("b.png", scene(71)[0][:40])):
        (miniature.folder / name).write_bytes(encoded(pixels, name))
    tool = ("-m", "papers.segic.predict", "--example", "a.png", "mask.png", "--image", "b.png", "--text", "fox")
    miniature.python(*tool, "--checkpoint", job, "--out", "first", "--save", "own.safetensors")
    miniature.python(*tool, "--checkpoint", "own.safetensors", "--out", "second")
    first, second = ((miniature.folder / name / "b_mask.png").read_bytes() for name in ("first", "second"))
    assert first == second
    assert Image.open(io.BytesIO(first)).size == (80, 40)
