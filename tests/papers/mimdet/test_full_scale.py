"""The full configuration on miniatures of COCO 2017, of MAE's file and of released detectors in their public layouts; a
scale of values cuts sizes."""

import hashlib
import io
import json
import math
import runpy
import zipfile

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.options import BenchmarkingOptions, MimDetOptions
from shared.paths import ROOT

pytestmark = pytest.mark.e2e

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
globals().update({name: workplace[name] for name in ("template", "project")})
# the files' names, written down tensor by tensor
released = runpy.run_path(str(ROOT / "tests/papers/mimdet/models/test_released.py"))
mae = runpy.run_path(str(ROOT / "tests/papers/mimdet/models/test_weights.py"))

BACKBONE = {"dim": 32, "depth": 4, "heads": 2, "decoder_dim": 16, "decoder_heads": 2}
WINDOWS = {"dim": 32, "depth": 4, "heads": 2, "image": 64, "window": 2}
HEADS = {
    "width": 8,
    "rpn": {"anchors": [8, 16, 32, 64, 128], "samples": 16, "pre_nms": [40, 40], "post_nms": [20, 20]},
    # a class has one chance in 81 at first: with the paper's threshold nothing would be found
    "roi": {"samples": 16, "box_convs": [8] * 4, "fc": [12], "mask_convs": [8] * 4, "mask_hidden": 8, "score": 0.0},
}
SMALL = {"kind": "multi_scale", "crop_shorts": [48, 56], "crop_sides": [32, 48], "shorts": [40, 64], "longest": 96}
SHORT = {"detector": HEADS, "epochs": 2, "batch": 3}
STEPS = {"augment": SMALL, "schedule": {"milestones": [1]}}
QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}


def loaded(**backbone):
    return {"options": {"model": {"detector": HEADS, "backbone": backbone}}}


# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [42]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": {
        "coco": {"evaluate": {"size": {"short": 64, "longest": 96}}},
        "coco_fixed": {"evaluate": {"size": {"size": 64}}},
    },
    "experiments": {
        "E1": {
            "rows": {
                # another ResNet's weights stand in the file of ResNet-50
                "Mask-R-CNN": {"options": {"model": {**SHORT, **STEPS, "resnet": {"kind": "resnet18"}}}},
                "MIMDet-B": {"options": {"model": {**SHORT, **STEPS, "backbone": BACKBONE}}},
            }
        },
        "E1-benchmarking": {
            "rows": {
                "25-epochs": {"options": {"model": {**SHORT, "backbone": WINDOWS, "augment": {"size": 64}}}},
            }
        },
        "E1-released": {"rows": {"MIMDet-B": loaded(**BACKBONE)}},
        "E1-v1-released": {"rows": {"B-0.5": loaded(**BACKBONE)}},
        "E1-benchmarking-released": {"rows": {"100-epochs": loaded(**WINDOWS)}},
    },
}
# COCO's 80 ids have ten gaps
IDS = [number for number in range(1, 91) if number not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]


def picture(random, number):
    """A JPEG with one bright rectangle, every third one grey, and the rectangle."""
    height, width = random.integers(50, 90, 2)
    top, left = random.integers(5, 15, 2)
    box = [int(left), int(top), 25, 30]
    pixels = random.integers(0, 90, (height, width, 3)).astype(np.uint8)
    pixels[top : top + 30, left : left + 25] = 220
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("L" if number % 3 == 2 else "RGB").save(stream, "JPEG")
    return stream.getvalue(), (int(height), int(width)), box


def annotations(number, size, box):
    """A polygon of any class, and a crowd of persons; the last image of four has neither."""
    if number % 4 == 3:
        return []
    left, top, width, height = box
    corners = [left, top, left + width, top, left + width, top + height, left, top + height]
    common = {"image_id": number + 9, "bbox": box, "area": width * height}
    rows, columns = size
    counts = [rows * 40, rows * 5, rows * (columns - 45)]  # by columns: five of them are inside
    crowd = {"bbox": [40, 0, 5, rows], "area": 5 * rows, "segmentation": {"counts": counts, "size": [rows, columns]}}
    return [
        {**common, "id": 2 * number + 1, "category_id": IDS[7 * number % 80], "iscrowd": 0, "segmentation": [corners]},
        {**common, "id": 2 * number + 2, "category_id": 1, "iscrowd": 1, **crowd},
    ]


def coco(part, num, seed):
    """The archive of a part's images, and its instance file."""
    random, stream = np.random.default_rng(seed), io.BytesIO()
    document = {"info": {}, "licenses": [], "images": [], "annotations": []}
    document["categories"] = [{"id": identity, "name": f"class {identity}"} for identity in IDS]
    with zipfile.ZipFile(stream, "w") as packed:
        for number in range(num):
            content, size, box = picture(random, number)
            name = f"{number + 9:012d}.jpg"
            packed.writestr(f"{part}/{name}", content)
            height, width = size
            document["images"].append({"id": number + 9, "file_name": name, "height": height, "width": width})
            document["annotations"] += annotations(number, size, box)
    return stream.getvalue(), json.dumps(document)


def coco_archives():
    """train2017.zip, val2017.zip and annotations_trainval2017.zip, in the order of the manifest."""
    (train, of_train), (val, of_val) = coco("train2017", 8, 0), coco("val2017", 5, 1)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("annotations/instances_train2017.json", of_train)
        packed.writestr("annotations/instances_val2017.json", of_val)
        packed.writestr("annotations/captions_val2017.json", "not wanted")
    return [train, val, stream.getvalue()]


def torch_file(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def filled(shapes):
    """Small random weights under the names of a file, variances about 1."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: value + name.endswith("running_var") for name, value in tensors.items()}


def mae_file():
    return torch_file({"model": filled(mae["mae_shapes"](dim=32, depth=4, decoder_dim=16, decoder_depth=8))})


def mimdet_file(fill):
    options = MimDetOptions(**BACKBONE, fill=fill)
    shapes = released["encoder_shapes"](options) | released["decoder_shapes"](options)
    if fill == "conv":  # as in the released ViT-B: a mask token that nothing reads
        shapes["backbone.bottom_up.decoder.mask_token"] = (1, 1, options.decoder_dim)
    return detectron2_file(shapes, options)


def benchmarking_file():
    options = BenchmarkingOptions(**WINDOWS, axes="rows")
    own = Benchmarking(options).state_dict()
    return detectron2_file({f"backbone.bottom_up.{name}": tuple(value.shape) for name, value in own.items()}, options)


def detectron2_file(shapes, options):
    shapes |= released["head_shapes"](options.channels, 80, width=8, fc=12)
    return torch_file({"model": filled(shapes), "iteration": 67499})


def put(project, mirror, name, contents):
    """Files into the mirror under the manifest's names. Where the manifest has digests, it gets theirs; where it has
    none, somebody brings the file, and it stays as it is."""
    path = project.folder / "data_manifests" / f"{name}.yaml"
    values = yaml.safe_load(path.read_text())
    for file, content in zip(values["files"], contents, strict=True):
        target = mirror / file.get("mirror", f"{name}/{file['name']}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if "sha256" in file:
            file.pop("md5", None)
            file |= {"sha256": [hashlib.sha256(content).hexdigest()], "size": len(content)}
    path.write_text(yaml.safe_dump(values))


@pytest.fixture
def miniature(project, tmp_path):
    """The project with everything in a mirror, verified like the real files."""
    mirror = tmp_path / "mirror"
    put(project, mirror, "coco_2017", coco_archives())
    put(project, mirror, "mae_vit_b_full", [mae_file()])
    put(project, mirror, "torchvision_resnet50", [torch_file(torchvision.models.resnet18().state_dict())])
    put(project, mirror, "mimdet_vit_b", [mimdet_file("conv")])
    put(project, mirror, "mimdet_vit_b_v1", [mimdet_file("mask_token")])
    put(project, mirror, "benchmarking_vit_b_100ep", [benchmarking_file()])
    room = project.folder / "papers" / "mimdet"
    (room / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (room / "Snakefile").write_text((ROOT / "papers" / "mimdet" / "Snakefile").read_text())
    project.environment["DATA_MIRROR"] = str(mirror)
    return project


def run(miniature, *cells):
    """Cell -> its metrics, and cell -> its job."""
    top = "results/mimdet/miniature"
    targets = {cell: f"{top}/records/{cell}/s42.json" for cell in cells}
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    found, jobs = {}, {}
    for cell, target in targets.items():
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        found[cell] = {metric["name"]: metric["value"] for metric in record["metrics"]}
        jobs[cell] = json.loads((miniature.folder / target.replace("records", "jobs", 1)).read_text())
    return found, jobs


def test_trained_and_released_detectors_run_on_the_public_layout(miniature):
    trained = (
        "E1/val2017/Mask-R-CNN",
        "E1/val2017/MIMDet-B",
        "E1-v1/val2017/B-0.5",
        "E1-benchmarking/val2017/25-epochs",
        "E2/test-0.25/train-0.5",
        "E5-init/test-1.0/random",
    )
    brought = (
        "E1-released/val2017/MIMDet-B",
        "E1-v1-released/val2017/B-0.5",
        "E1-benchmarking-released/val2017/100-epochs",
    )
    found, jobs = run(miniature, *trained, *brought)
    for cell, values in found.items():
        for name in ("AP_box", "AP_mask", "AP50_box", "AR100_mask"):
            assert math.isfinite(values[name]), (cell, name)
            assert 0 <= values[name] <= 100
    # 6 of 8 training images have an object that is no crowd, so two epochs are four steps of three
    assert all(found[cell]["step_ms"] > 0 for cell in trained)
    assert not any("step_ms" in found[cell] for cell in brought)
    options = {cell: job["options"]["model"] for cell, job in jobs.items()}
    main, first = options["E1/val2017/MIMDet-B"], options["E1-v1/val2017/B-0.5"]
    assert (main["backbone"]["ratio_train"], main["backbone"]["fill"], main["mae"]) == (0.5, "conv", "mae_vit_b_full")
    assert first["backbone"]["fill"] == "mask_token"
    assert options["E5-init/test-1.0/random"]["mae"] is None
    assert options["E1-benchmarking/val2017/25-epochs"]["backbone"]["axes"] == "rows"
    assert jobs["E2/test-0.25/train-0.5"]["options"]["ratio_test"] == 0.25
    assert len(jobs["E1/val2017/MIMDet-B"]["task"]["evaluate"]["classes"]) == 80


def test_a_released_detector_of_a_run_is_used_by_the_tool_and_saved(miniature):
    cell = "E1-released/val2017/MIMDet-B"
    run(miniature, cell)
    (miniature.folder / "own").mkdir()
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(miniature.folder / "own" / "a.png")
    tool = ("-m", "papers.mimdet.predict", "own", "--checkpoint")
    job = f"results/mimdet/miniature/jobs/{cell}/s42.json"
    miniature.python(*tool, job, "--out", "a", "--save", "own.safetensors")
    miniature.python(*tool, "own.safetensors", "--out", "b")
    first, second = (json.loads((miniature.folder / name / "detections.json").read_text()) for name in "ab")
    assert first == second
    assert len(first["categories"]) == 80
    assert first["annotations"][0]["segmentation"]["size"] == [40, 50]
