"""The tool on a small detector: files, numbers in them, and one line for every mistake."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from papers.mimdet import predict
from papers.mimdet.checkpoint import Form, Ready, build, load, released_form, save
from papers.mimdet.options import SIZES
from shared.detection.detect import Detections, detect
from shared.detection.options import DetectorOptions, PixelOptions, ResNetOptions, SameSize
from shared.errors import DataError
from shared.segmentation.coco import decode

HEADS = DetectorOptions(
    width=16,
    top=False,
    norm="batch",
    rpn={"anchors": [8.0, 12.0, 16.0, 28.0], "samples": 32, "pre_nms": (50, 50), "post_nms": (20, 20)},
    roi={"box_bins": 5, "mask_bins": 7, "sampling": 1, "box_convs": [16], "fc": [16], "mask_convs": [16],
         "mask_hidden": 16, "detections": 5, "score": 0.0},
)  # fmt: skip
FORM = Form(
    kind="mimdet",
    backbone=SIZES["small"].model_dump(mode="json"),
    detector=HEADS,
    classes=["circle", "square"],
    size=SameSize(),
    pixels=PixelOptions(divisor=16),
)


def fresh(form=FORM):
    return Ready(build(form).eval(), form)


@pytest.fixture
def folder(tmp_path):
    """model.safetensors, and two pictures of unlike sizes."""
    save(fresh(), tmp_path / "model.safetensors")
    (tmp_path / "own").mkdir()
    for name, (height, width) in {"a.png": (60, 80), "b.JPG": (50, 40)}.items():
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "own" / name)
    (tmp_path / "own" / "notes.txt").write_text("no picture")
    return tmp_path


def run(folder, *arguments, images="own"):
    checkpoint = ("--checkpoint", str(folder / "model.safetensors"), "--out", str(folder / "out"))
    return predict.main([str(folder / images), *checkpoint, *arguments])


def test_the_file_holds_what_the_detector_finds(folder, capsys):
    assert run(folder, "--score", "0") == 0
    assert "2 images" in capsys.readouterr().out
    document = json.loads((folder / "out" / "detections.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "b.JPG"]
    assert document["categories"] == [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}]
    model = load(folder / "model.safetensors", torch.device("cpu")).model
    with Image.open(folder / "own" / "a.png") as image:
        (found,) = detect(model, [np.array(image)], FORM.size, FORM.pixels)
    own = [entry for entry in document["annotations"] if entry["image_id"] == 1]
    assert len(own) == len(found) > 0
    for entry, box, score, mask in zip(own, found.boxes, found.scores, found.masks, strict=True):
        assert entry["bbox"][:2] == pytest.approx(box[:2], abs=0.01)
        assert entry["score"] == pytest.approx(float(score), abs=1e-4)
        assert np.array_equal(decode(entry["segmentation"]), mask)
    assert [entry["id"] for entry in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    with Image.open(folder / "out" / "a.png.png") as picture:
        assert picture.size == (480, 360)  # six times, the most that stays within 512


def test_a_damaged_image_is_named_and_costs_no_other(folder, capsys):
    content = (folder / "own" / "a.png").read_bytes()
    (folder / "own" / "aa.png").write_bytes(content[: len(content) // 2])
    assert run(folder) == 2
    printed = capsys.readouterr()
    assert "2 images" in printed.out
    assert printed.err.startswith("error: ")
    assert "aa.png" in printed.err
    document = json.loads((folder / "out" / "detections.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "b.JPG"]
    assert (folder / "out" / "b.JPG.png").is_file()


def test_what_is_saved_is_loaded_again(tmp_path):
    resnet = FORM.model_copy(update={"kind": "mask_rcnn", "backbone": ResNetOptions().model_dump(mode="json")})
    for form in (FORM, resnet):
        ready = fresh(form)
        save(ready, tmp_path / "m.safetensors")
        found = load(tmp_path / "m.safetensors", torch.device("cpu"))
        assert found.form == form
        own = found.model.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in ready.model.state_dict().items())
        assert not any(parameter.requires_grad for parameter in found.model.parameters())


def test_enlarged_objects_stay_on_their_pixels():
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 10:20, 30:50] = True
    found = Detections(np.array([[30, 10, 50, 20]], np.float32), np.ones(1), np.zeros(1, int), mask)
    image, larger = predict.enlarged(np.zeros((60, 80, 3), np.uint8), found)
    assert image.shape == (360, 480, 3)
    assert larger.boxes.tolist() == [[180, 60, 300, 120]]
    assert larger.masks.sum() == 36 * 200


def test_kind_size_and_version_are_found_from_a_released_file():
    top = "backbone.bottom_up."
    table = {f"{top}encoder.pos_embed": torch.zeros(1, 2501, 768)}
    assert released_form(table, "x").backbone == {"fill": "mask_token", "grid": 50}
    table[f"{top}decoder.conv_feat_proj.weight"] = torch.zeros(1)
    assert released_form(table, "x").backbone["fill"] == "conv"
    large = released_form({f"{top}encoder.pos_embed": torch.zeros(1, 197, 1024)}, "x")
    assert (large.backbone["depth"], large.backbone["grid"], len(large.classes)) == (24, 14, 80)
    windows = {f"{top}windowed_rel_pos_bias.relative_position_bias_table": torch.zeros(1)}
    assert released_form(windows, "x").size.kind == "fixed"
    with pytest.raises(DataError, match="x: is no released MIMDet"):
        released_form({"weight": torch.zeros(1)}, "x")


@pytest.mark.parametrize(
    ("arguments", "images", "words"),
    [
        ([], "none", "no such folder"),
        ([], "out", "holds no image"),
        (["--seed", "1"], "own", "a seed goes with a JOB"),
        (["--save", "model.pth"], "own", "give it that ending"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, images, words):
    (folder / "out").mkdir()
    assert run(folder, *arguments, images=images) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--checkpoint", "x"], ["own", "--checkpoint", "x", "--score", "2"]])
def test_a_wrong_command_line_is_explained(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict.main(arguments)
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.pth", "damaged.pth", "damaged.safetensors", "missing.json", "other.json"])
def test_a_file_that_is_no_detector_is_named(name, folder, capsys):
    path = folder / name
    if name.startswith("damaged"):
        path.write_bytes(b"no weights")
    elif name.startswith("other"):
        path.write_text('{"kind": "stage", "stages": {}}')
    assert predict.main([str(folder / "own"), "--checkpoint", str(path)]) == 2
    assert name in capsys.readouterr().err
