"""The tool, and the files it reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import papers.segic.checkpoint as module
from papers.segic.checkpoint import load, save
from papers.segic.model import build_segic
from papers.segic.options import Assembly, Backbone
from papers.segic.predict import main
from papers.segic.predictor import SegicPredictor
from papers.segic.released import save_released
from papers.segic.text import RandomTexts
from shared.errors import DataError
from tests.papers.segic.scenes import picture

CPU = torch.device("cpu")


@pytest.fixture
def saved(make, backbone, tmp_path):
    predictor = SegicPredictor(make(), backbone, RandomTexts(8))
    save(predictor, tmp_path / "model.safetensors")
    return predictor, tmp_path / "model.safetensors"


@pytest.fixture
def files(tmp_path):
    """An example with its mask, and an image of another size."""
    image, labels, _ = picture(0)
    Image.fromarray(image).save(tmp_path / "example.png")
    Image.fromarray(((labels == 1) * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(np.tile(picture(3)[0], (1, 2, 1))).save(tmp_path / "query.png")
    return tmp_path


def asked(files, checkpoint, *more, image="query.png", mask="mask.png"):
    example = ["--example", str(files / "example.png"), str(files / mask)]
    command = [*example, "--image", str(files / image), "--checkpoint", str(checkpoint), "--out", str(files / "out")]
    return main([*command, *more])


def test_a_saved_model_answers_as_it_did(saved):
    predictor, path = saved
    again, image = load(path, CPU), picture(2)[0]
    from shared.segmentation.episodes.predictor import Example

    example = Example(picture(0)[0], picture(0)[1] == 1)
    first, second = (p.scores(p.remember([example], "fox"), [image])[0] for p in (predictor, again))
    assert np.array_equal(first, second)


def test_mask_and_overlay_are_written_at_the_images_size(saved, files, capsys):
    _, path = saved
    assert asked(files, path, "--text", "square") == 0
    mask = np.asarray(Image.open(files / "out" / "query_mask.png").convert("L"))
    assert mask.shape[:2] == (32, 64)
    assert set(np.unique(mask)) <= {0, 255}
    overlay = np.asarray(Image.open(files / "out" / "query_overlay.png"))
    assert overlay.shape == (8 * 32, 8 * 64, 3)
    assert "query.png: " in capsys.readouterr().out


def test_bad_input_is_one_line(saved, files, capsys):
    _, path = saved
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(files / "empty.png")
    Image.fromarray(np.full((16, 32), 255, np.uint8)).save(files / "small.png")
    for mask, message in (
        ("empty.png", "its mask is empty"),
        ("small.png", "is 32x16 pixels, its image example.png 32x32"),
    ):
        assert asked(files, path, mask=mask) == 2
        assert message in capsys.readouterr().err
    assert asked(files, path, image="missing.png") == 2
    assert "missing.png" in capsys.readouterr().err
    same = ["--image", str(files / "other" / "query.png")]
    assert asked(files, path, *same) == 2
    assert "called 'query'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--checkpoint", "x"], ["--checkpoint", "x", "--image", "y"]])
def test_a_command_that_asks_nothing_is_refused(arguments):
    with pytest.raises(SystemExit):
        main(arguments)


def test_a_released_file_names_its_backbone(tmp_path, monkeypatch):
    """The backbone follows from the width of its features."""
    options = Assembly(backbone=Backbone(name="dinov2_vitb14"))
    model = build_segic(options, 0)
    save_released(model, tmp_path / "segic.pth")
    asked = []
    monkeypatch.setattr(module, "build_backbone", lambda sam, options, seed: asked.append(options) or model)
    monkeypatch.setattr(module, "text_encoder", lambda spec: asked.append(spec))
    found = load(tmp_path / "segic.pth", CPU)
    assert (asked[0].name, asked[0].weights) == ("dinov2_vitb14", "dinov2_vitb14")
    assert asked[1].clip == "clip_vit_large_patch14"
    assert torch.equal(found.model.neck[0].weight, model.neck[0].weight)


def test_other_files_are_refused(saved, tmp_path):
    _, path = saved
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    for name, message in (
        ("plain.safetensors", "was not saved by this tool"),
        ("plain.pth", "holds no SegIC on a DINOv2"),
        ("missing.pth", "no such checkpoint"),
    ):
        with pytest.raises(DataError, match=message):
            load(tmp_path / name, CPU)
    with pytest.raises(DataError, match="a seed goes with a JOB"):
        load(path, CPU, seed=1)
    with pytest.raises(DataError, match="give it that ending"):
        save(load(path, CPU), tmp_path / "model.pth")
