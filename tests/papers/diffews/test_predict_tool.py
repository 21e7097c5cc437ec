"""The tool and its checkpoints: a saved model answers as before, and what is wrong is one line."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from papers.diffews.checkpoint import load, save
from papers.diffews.method import FewShot
from papers.diffews.options import Answering, DiffewsOptions
from papers.diffews.predict import main
from papers.diffews.released import load_unet
from shared.errors import DataError

CPU = torch.device("cpu")
ANSWERING = Answering(tau=0.6)


def put(path, seed, height=32, width=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def put_mask(path, height=32, width=32, value=255):
    mask = np.zeros((height, width), np.uint8)
    mask[4:16, 8:] = value
    Image.fromarray(mask).save(path)
    return str(path)


@pytest.fixture
def work(tmp_path, make, monkeypatch):
    """A saved model, an example with its mask, and two images."""
    monkeypatch.chdir(tmp_path)
    save(FewShot(make(), ANSWERING, 3), tmp_path / "small.safetensors")
    put(tmp_path / "example.png", 1)
    put_mask(tmp_path / "mask.png")
    put(tmp_path / "a.png", 2)
    put(tmp_path / "b.png", 3, 40, 60)
    return tmp_path


def run(*arguments):
    return main(["--example", "example.png", "mask.png", "--checkpoint", "small.safetensors", *map(str, arguments)])


def test_masks_and_overlays_of_all_images(work, capsys):
    assert run("--image", "a.png", "--image", "b.png", "--out", "found") == 0
    masks = {name: np.asarray(Image.open(work / "found" / f"{name}_mask.png").convert("L")) for name in "ab"}
    assert masks["a"].shape == (32, 32)
    assert masks["b"].shape == (40, 60)
    assert set(np.unique(masks["a"])) <= {0, 255}
    assert Image.open(work / "found" / "b_overlay.png").size == (480, 320)
    assert "% of the image" in capsys.readouterr().out


def test_a_mask_of_ones_is_the_same_example(work):
    put_mask(work / "ones.png", value=1)
    for name in ("mask", "ones"):
        values = ["--example", "example.png", f"{name}.png", "--checkpoint", "small.safetensors", "--image", "a.png"]
        assert main([*values, "--out", name]) == 0
    assert (work / "mask" / "a_mask.png").read_bytes() == (work / "ones" / "a_mask.png").read_bytes()


def test_a_saved_model_answers_as_before(work, make):
    before = FewShot(make(), ANSWERING, 3)
    after = load(work / "small.safetensors", CPU)
    assert after.seed == 3
    assert after.answering == ANSWERING
    for name, value in before.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[name])


def test_saving_keeps_the_answering_of_a_row(tmp_path, make):
    model = make()
    save(
        FewShot(model, DiffewsOptions(model=model.options, threshold="absolute", tau=0.1), 0),
        tmp_path / "x.safetensors",
    )
    assert load(tmp_path / "x.safetensors", CPU).answering == Answering(threshold="absolute", tau=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "missing.png"], "no such file"),
        (["--image", "a.png", "--example", "example.png", "small_mask.png"], "make them equal"),
        (["--image", "a.png", "--example", "example.png", "black.png"], "empty"),
        (["--image", "a.png", "--image", "other/a.png"], "two images are called 'a'"),
        (["--image", "a.png", "--seed", "1"], "a seed goes with a JOB"),
        (["--image", "a.png", "--save", "model.pt"], ".safetensors"),
    ],
)
def test_what_is_wrong_is_one_line(work, capsys, arguments, message):
    put_mask(work / "small_mask.png", 20, 20)
    put_mask(work / "black.png", value=0)
    (work / "other").mkdir()
    put(work / "other" / "a.png", 4)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_incomplete_command_says_what_is_missing(work, capsys):
    for arguments, message in ((["--image", "a.png"], "--example IMAGE MASK"), ([], "give an --image, or --save FILE")):
        with pytest.raises(SystemExit):
            main([*arguments, "--checkpoint", "small.safetensors"])
        assert message in capsys.readouterr().err


def test_foreign_files_are_refused_by_name(work):
    (work / "text.safetensors").write_text("no tensors")
    save_file({"a": torch.zeros(1)}, work / "other.safetensors")
    for name, message in (("text", "damaged"), ("other", "holds no options"), ("none", "no such checkpoint")):
        with pytest.raises(DataError, match=f"{name}.safetensors: {message}|{name}.safetensors.*{message}"):
            load(work / f"{name}.safetensors", CPU)
    (work / "job.json").write_text('{"kind": "row", "method": "sam"}')
    with pytest.raises(DataError, match="expected a row of papers"):
        load(work / "job.json", CPU)


def release(folder, tensors):
    folder.mkdir(parents=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_a_released_unet_is_loaded_name_by_name(tmp_path, make):
    theirs, ours = make(1).latent.unet.state_dict(), make(2)
    assert {"conv_in.weight", "conv_in_ref.weight", "conv_in_ref.bias"} <= set(theirs)
    load_unet(ours, release(tmp_path / "good", theirs))
    for name, value in ours.latent.unet.state_dict().items():
        assert torch.equal(value, theirs[name])


def test_a_released_unet_that_does_not_fit_is_refused(tmp_path, make):
    theirs, ours = make(1).latent.unet.state_dict(), make(2)
    plain = {name: value for name, value in theirs.items() if "conv_in_ref" not in name}
    cases = {
        "plain": (plain, "no tensor 'conv_in_ref"),
        "more": ({**theirs, "more": torch.zeros(1)}, "'more' is unknown"),
        "shape": ({**theirs, "conv_in.weight": torch.zeros(1)}, "has shape"),
    }
    for name, (tensors, message) in cases.items():
        with pytest.raises(DataError, match=message):
            load_unet(ours, release(tmp_path / name, tensors))
    with pytest.raises(DataError, match="has neither"):
        load_unet(ours, tmp_path)
