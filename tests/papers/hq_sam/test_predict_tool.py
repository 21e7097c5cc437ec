"""The tool on a small model: files, numbers in them, and one line for every mistake."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from papers.hq_sam import predict
from papers.hq_sam.checkpoint import _size_name, load, save
from papers.hq_sam.models import build_hq, new_names
from papers.hq_sam.options import HqOptions
from shared.errors import DataError
from shared.segmentation.coco import decode
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import sam_size
from shared.segmentation.sam.predictor import Predictor

SIZE = sam_size("small_patch8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model.safetensors, and image.png of 80x60 pixels."""
    found = tmp_path_factory.mktemp("tool")
    save(Prompted(build_hq(SIZE, seed=3), {"hq_token_only": True}), found / "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(found / "image.png")
    return found


def run(folder, *arguments):
    return predict.main(
        [str(folder / "image.png"), "--checkpoint", str(folder / "model.safetensors"), "--out", str(folder / "out"),
         *arguments]
    )  # fmt: skip


def test_several_boxes_give_the_predictors_masks_as_files(folder, capsys):
    boxes = [[5, 6, 40, 50], [30, 10, 79, 59]]
    assert run(folder, "--box", "5,6,40,50", "--box", "30,10,79,59") == 0
    assert "2 masks" in capsys.readouterr().out
    model = load(folder / "model.safetensors", torch.device("cpu")).model
    predictor = Predictor(model, hq_token_only=True)
    with Image.open(folder / "image.png") as image:
        expected = predictor.predict(predictor.embed(np.array(image)), boxes=boxes)
    document = json.loads((folder / "out" / "image.json").read_text())
    assert document["images"] == [{"id": 1, "file_name": "image.png", "height": 60, "width": 80}]
    for number, (annotation, mask, iou) in enumerate(
        zip(document["annotations"], expected.masks[:, 0], expected.iou[:, 0], strict=True), 1
    ):
        with Image.open(folder / "out" / f"image_mask{number}.png") as file:
            written = np.array(file.convert("L"))
        assert np.array_equal(written, mask * np.uint8(255))
        assert np.array_equal(decode(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()
        assert annotation["score"] == pytest.approx(float(iou))
        x, y, width, height = annotation["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    with Image.open(folder / "out" / "image_overlay.png") as overlay:
        assert overlay.size == (480, 360)  # six times, the most that stays within 512


def test_points_ask_for_one_mask_alone_or_in_a_box(folder, capsys):
    assert run(folder, "--point", "20,30", "--point", "70,5,0") == 0
    assert "1 mask " in capsys.readouterr().out
    alone = json.loads((folder / "out" / "image.json").read_text())["annotations"]
    assert run(folder, "--point", "20,30", "--box", "5,6,40,50", "--multimask") == 0
    boxed = json.loads((folder / "out" / "image.json").read_text())["annotations"]
    assert len(alone) == len(boxed) == 1
    assert alone[0]["score"] != boxed[0]["score"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--box", "5,6,40"], "expected x0,y0,x1,y1"),
        (["--box", "5,6,40,fifty"], "expected x0,y0,x1,y1"),
        (["--box", "40,6,5,50"], "second corner"),
        (["--box", "90,6,100,50"], "outside the image of 80x60"),
        (["--point", "5,6,2"], "expected x,y or"),
        (["--point", "5,nan"], "expected x,y or"),
        (["--point", "80,6"], "outside the image"),
        (["--point", "5,6,0"], "all points are outside"),
        (["--point", "5,6", "--box", "0,0,9,9", "--box", "1,1,9,9"], "several boxes"),
        (["--box", "0,0,9,9", "--seed", "1"], "a seed goes with a JOB"),
        (["--box", "0,0,9,9", "--save", "model.pth"], "give it that ending"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, words):
    assert run(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--checkpoint", "x"], ["image.png", "--checkpoint", "x"]])
def test_nothing_to_do_is_a_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict.main(arguments)
    assert "--" in capsys.readouterr().err


def test_what_is_saved_is_loaded_again(tmp_path):
    options = HqOptions(features=["decoder", "final"], context_tokens=2)
    for model in (build_hq(SIZE, options, 1), build_sam(SIZE, 1)):
        save(Prompted(model, {}, multimask=True), tmp_path / "m.safetensors")
        found = load(tmp_path / "m.safetensors", torch.device("cpu"))
        assert found.multimask
        assert found.decode == {}
        own = model.state_dict()
        assert own.keys() == found.model.state_dict().keys()
        assert all(torch.equal(value, own[name]) for name, value in found.model.state_dict().items())
        assert not any(parameter.requires_grad for parameter in found.model.parameters())


def test_a_plain_sam_has_no_hq_token(folder, tmp_path, capsys):
    save(Prompted(build_sam(SIZE, 1)), tmp_path / "sam.safetensors")
    arguments = [str(folder / "image.png"), "--checkpoint", str(tmp_path / "sam.safetensors"), "--box", "1,1,30,30"]
    assert predict.main([*arguments, "--out", str(tmp_path)]) == 0
    assert predict.main([*arguments, "--hq-token-only"]) == 2
    assert "without an HQ token" in capsys.readouterr().err


def test_the_size_is_found_from_a_released_file():
    def table(width):
        return {"image_encoder.pos_embed": torch.zeros(1, 64, 64, width)}

    assert [_size_name("x", table(width)) for width in (768, 1024, 1280)] == ["vit_b", "vit_l", "vit_h"]
    with pytest.raises(DataError, match="no published size"):
        _size_name("x", table(64))
    with pytest.raises(DataError, match="holds no SAM"):
        _size_name("x", {"weight": torch.zeros(1)})


def test_light_hq_sam_is_read_as_released(tmp_path):
    model = build_hq(sam_size("tiny_vit"), seed=1)
    torch.save(model.state_dict(), tmp_path / "sam_hq_vit_tiny.pth")
    found = load(tmp_path / "sam_hq_vit_tiny.pth", torch.device("cpu"))
    assert len(new_names(found.model)) == 25
    assert torch.equal(found.model.mask_decoder.hf_token.weight, model.mask_decoder.hf_token.weight)
    torch.save({k: v for k, v in model.state_dict().items() if "hf_mlp" not in k}, tmp_path / "half.pth")
    with pytest.raises(DataError, match=r"half\.pth: has no tensor 'mask_decoder\.hf_mlp"):
        load(tmp_path / "half.pth", torch.device("cpu"))


@pytest.mark.parametrize("name", ["missing.pth", "damaged.pth", "damaged.safetensors", "missing.json", "other.json"])
def test_a_file_that_is_no_model_is_named(name, folder, tmp_path, capsys):
    path = tmp_path / name
    if name.startswith("damaged"):
        path.write_bytes(b"no weights")
    elif name.startswith("other"):
        path.write_text('{"kind": "stage", "stages": {}}')
    code = predict.main([str(folder / "image.png"), "--checkpoint", str(path), "--box", "1,1,30,30"])
    assert code == 2
    assert name in capsys.readouterr().err
