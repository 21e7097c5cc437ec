"""The command-line tool: files that a user can open, one line for everything that can go wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from papers.promptnucseg.checkpoint import METHOD, load_checkpoint, save_checkpoint
from papers.promptnucseg.method import PromptNucSegOptions, promptnucseg
from papers.promptnucseg.predict import coco_file, main, mask_png, write_results
from papers.promptnucseg.prompter.model import build_prompter
from papers.promptnucseg.prompter.options import PrompterTraining, SmallNet
from papers.promptnucseg.segmentor.options import SegmentorTraining
from shared.errors import ConfigError, DataError
from shared.segmentation.coco import coco_of, decode
from shared.segmentation.pictures import read_labels
from shared.segmentation.predictors import Segmented
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES

OPTIONS = PromptNucSegOptions(
    prompter=PrompterTraining(backbone=SmallNet(widths=[4, 8, 8]), width=8),
    segmentor=SegmentorTraining(num_negatives=1),
    filter=False,
    radius=5.0,
    window=64,
    overlap=16,
    edge_margin=None,
    num_negatives=1,
)


def networks():
    """Untrained ones, of which the segmentor's masks differ from point to point."""
    segmentor, generator = build_sam(SIZES["small_patch8"], 2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in segmentor.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return {"prompter": build_prompter(OPTIONS.prompter, 1), "segmentor": segmentor}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "nuclei.safetensors"
    save_checkpoint(networks(), OPTIONS, path)
    return path


def picture(shape=(70, 90)):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cells.png"
    Image.fromarray(picture()).save(path)
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_file_gives_the_same_result_as_the_networks_it_was_made_of(checkpoint):
    before = promptnucseg(networks(), OPTIONS, None).segment(picture())
    loaded = load_checkpoint(checkpoint)
    after = loaded.segment(picture())
    assert loaded.options == OPTIONS
    assert before.labels.max() > 1
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.points, before.points)


def test_raw_sam_can_be_saved_too(tmp_path):
    path = tmp_path / "raw.safetensors"
    parts = {"prompter": networks()["prompter"], "sam": networks()["segmentor"]}
    save_checkpoint(parts, OPTIONS.model_copy(update={"segmentor": None}), path)
    assert load_checkpoint(path).options.segmentor is None


def test_a_row_with_the_oracle_s_prompts_cannot_be_saved(tmp_path):
    options = PromptNucSegOptions(prompts="oracle")
    with pytest.raises(ConfigError, match="a checkpoint needs a prompter"):
        save_checkpoint({"sam": build_sam(SIZES["small_patch8"], 0)}, options, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_the_tool_writes_mask_overlay_and_coco_file(checkpoint, image, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(image, "--checkpoint", checkpoint, "--out", out) == 0
    expected = load_checkpoint(checkpoint).segment(picture())
    np.testing.assert_array_equal(read_labels(out / "cells_mask.png"), expected.labels)
    assert Image.open(out / "cells_mask.png").mode.startswith("I;16")
    assert Image.open(out / "cells_overlay.png").size == (90 * 5, 70 * 5)
    content = json.loads((out / "cells.json").read_text())
    assert len(content["annotations"]) == len(expected.classes) > 0
    assert f"{len(expected.classes)} nuclei" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits"])
def test_grey_alpha_and_16_bit_images(checkpoint, tmp_path, kind):
    pixels = picture((64, 64))
    stored = {
        "grey": pixels[..., 0],
        "alpha": np.concatenate([pixels, np.full((64, 64, 1), 9, np.uint8)], -1),
        "16 bits": pixels[..., 0].astype(np.uint16) * 256 + 17,
    }[kind]
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path)
    assert run(path, "--checkpoint", checkpoint, "--out", tmp_path) == 0
    seen = pixels if kind == "alpha" else np.repeat(pixels[..., :1], 3, 2)
    expected = load_checkpoint(checkpoint).segment(seen)
    np.testing.assert_array_equal(read_labels(tmp_path / "a_mask.png"), expected.labels)


def found(labels, classes, scores, planes=None):
    points = np.zeros((0, 2))
    return Segmented(labels, np.array(classes), np.array(scores), points, np.zeros(0), np.zeros(0, int), planes)


def test_the_coco_file_is_one(tmp_path):
    labels = np.zeros((12, 20), np.int32)
    labels[2:5, 3:9], labels[6:9, 1:3], labels[10, 19] = 2, 1, 3
    planes = np.stack([labels * (labels == 1), labels * (labels > 1)])
    document = coco_file(found(labels, [0, 1, 1], [0.9, 0.8, 0.25], planes), "a.tif")
    coco = coco_of(json.loads(json.dumps(document)))
    assert coco.imgs[1]["file_name"] == "a.tif"
    assert (coco.imgs[1]["height"], coco.imgs[1]["width"]) == (12, 20)
    assert [a["bbox"] for a in document["annotations"]] == [[1, 6, 2, 3], [3, 2, 6, 3], [19, 10, 1, 1]]
    assert [a["area"] for a in document["annotations"]] == [6, 18, 1]
    assert [a["category_id"] for a in document["annotations"]] == [1, 2, 2]
    assert [a["score"] for a in document["annotations"]] == [0.9, 0.8, 0.25]
    for annotation in document["annotations"]:
        np.testing.assert_array_equal(decode(annotation["segmentation"]), labels == annotation["id"])
        np.testing.assert_array_equal(coco.annToMask(annotation), labels == annotation["id"])
    assert [category["id"] for category in document["categories"]] == [1, 2]


def test_ids_above_255_survive_in_the_mask(tmp_path):
    labels = np.arange(40 * 50, dtype=np.int32).reshape(40, 50)
    path = tmp_path / "mask.png"
    path.write_bytes(mask_png(labels))
    np.testing.assert_array_equal(read_labels(path), labels)


def test_more_nuclei_than_a_mask_holds_are_refused(tmp_path):
    many = np.arange(70000, dtype=np.int32).reshape(250, 280)
    with pytest.raises(DataError, match=r"big\.png: 69999 nuclei, but a mask of 16 bits holds 65535"):
        write_results(
            found(many, np.zeros(69999, int), np.ones(69999)), picture((250, 280)), "big", "big.png", tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_nuclei_gives_empty_files_and_says_so(checkpoint, image, tmp_path, capsys, monkeypatch):
    prompter = build_prompter(OPTIONS.prompter, 0)
    with torch.no_grad():
        prompter.classify[-1].bias[-1] = 1e3  # all background
    path = tmp_path / "blind.safetensors"
    save_checkpoint({**networks(), "prompter": prompter}, OPTIONS, path)
    assert run(image, "--checkpoint", path, "--out", tmp_path / "out") == 0
    assert "no nuclei, so the files are empty" in capsys.readouterr().out
    assert not read_labels(tmp_path / "out" / "cells_mask.png").any()
    assert json.loads((tmp_path / "out" / "cells.json").read_text())["annotations"] == []
    assert (tmp_path / "out" / "cells_overlay.png").is_file()


def broken(path, checkpoint, kind):
    """A wrong checkpoint of some kind at `path`."""
    tensors = load_file(checkpoint)
    metadata = {"promptnucseg": json.dumps({"options": OPTIONS.model_dump(mode="json"), "size": _size()})}
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "cut":
        path.write_bytes(checkpoint.read_bytes()[:1000])
    elif kind == "foreign":
        save_file(tensors, path)
    elif kind == "less":
        save_file({k: v for k, v in tensors.items() if k != "prompter.merge.bias"}, path, metadata)
    elif kind == "more":
        save_file({**tensors, "prompter.merge.bais": torch.zeros(8)}, path, metadata)
    elif kind == "shape":
        save_file({**tensors, "prompter.merge.bias": torch.zeros(9)}, path, metadata)
    elif kind == "version":
        old = {"options": {**OPTIONS.model_dump(mode="json"), "colour": 1}, "size": _size()}
        save_file(tensors, path, {"promptnucseg": json.dumps(old)})


def _size():
    return SIZES["small_patch8"].model_dump(mode="json")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such checkpoint; make one with"),
        ("text", "no checkpoint of this tool, or a damaged one"),
        ("cut", "no checkpoint of this tool, or a damaged one"),
        ("foreign", "holds no options of PromptNucSeg"),
        ("less", "has no tensor 'prompter.merge.bias'"),
        ("more", "tensor 'prompter.merge.bais' is unknown to this model (did you mean 'prompter.merge.bias'?)"),
        ("shape", "'prompter.merge.bias' has shape (9,), this model wants (8,)"),
        ("version", "was written by another version (colour: unknown key"),
    ],
)
def test_a_wrong_checkpoint_is_one_line(checkpoint, image, tmp_path, capsys, kind, message):
    path = tmp_path / "wrong.safetensors"
    broken(path, checkpoint, kind)
    assert run(image, "--checkpoint", path, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_image_is_one_line(checkpoint, tmp_path, capsys):
    text = tmp_path / "notes.png"
    text.write_text("hello")
    for path, message in [(text, "damaged image"), (tmp_path / "none.png", "no such file"), (tmp_path, "image")]:
        assert run(path, "--checkpoint", checkpoint, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {path}: ")
        assert message in said
        assert said.count("\n") == 1


def test_images_of_one_name_are_refused(checkpoint, image, tmp_path, capsys):
    twin = tmp_path / "b" / "cells.jpg"
    twin.parent.mkdir()
    Image.fromarray(picture()).save(twin)
    assert run(image, twin, "--checkpoint", checkpoint) == 2
    assert "two images are called 'cells'" in capsys.readouterr().err


def test_a_command_without_a_task_shows_the_usage(checkpoint, capsys):
    with pytest.raises(SystemExit):
        run("--checkpoint", checkpoint)
    assert "give an IMAGE, or --save FILE" in capsys.readouterr().err


# ---- rows of a finished run


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A row of a run whose networks are made: (path, content)."""
    monkeypatch.chdir(tmp_path)
    trained = networks()
    recipes = {}
    size = SIZES["small_patch8"]
    for name, part in (("prompter", OPTIONS.prompter), ("segmentor", OPTIONS.segmentor)):
        recipes[name] = {"build": part.build, "train": part.train, "options": part.model_dump(mode="json"), "seed": 3}
    recipes["sam"] = {"stage": "sam"}
    stages = {}
    for name, recipe in recipes.items():
        folder = tmp_path / "results" / "stages" / name
        folder.mkdir(parents=True)
        network = build_sam(size, 0) if name == "sam" else trained[name]
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
        (folder / "record.json").write_text("{}")
        stages[name] = {"output": f"results/stages/{name}/record.json", "recipe": recipe}
    source = {"weights": "weights.safetensors", "size": _size()}
    (tmp_path / "results/stages/sam/source.json").write_text(json.dumps(source))
    content = {
        "kind": "row",
        "method": METHOD,
        "options": OPTIONS.model_dump(mode="json"),
        "seeds": [3, 4],
        "stages": {"3": stages},
    }
    path = tmp_path / "s3-4.json"
    path.write_text(json.dumps(content))
    return path, content


def test_a_row_of_a_run_is_used_and_exported(job, image, tmp_path, capsys):
    path, _ = job
    assert run(image, "--checkpoint", path, "--out", "a", "--save", "nuclei.safetensors") == 0
    assert "nuclei.safetensors: " in capsys.readouterr().out
    assert run(image, "--checkpoint", "nuclei.safetensors", "--out", "b") == 0
    expected = promptnucseg(networks(), OPTIONS, None).segment(picture())
    for folder in ("a", "b"):
        np.testing.assert_array_equal(read_labels(tmp_path / folder / "cells_mask.png"), expected.labels)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"method": "papers.salun.method:salun"}, [], "a job of papers.salun.method:salun, expected a row of"),
        ({}, ["--seed", "7"], "has no seed 7; its seeds are 3, 4"),
        ({"stages": {"3": {"prompter": {"output": "gone.json"}}}}, [], "'prompter' is not trained yet"),
    ],
)
def test_a_wrong_job_is_one_line(job, image, capsys, changes, arguments, message):
    path, content = job
    path.write_text(json.dumps({**content, **changes}))
    assert run(image, "--checkpoint", path, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_row_that_asks_the_truth_cannot_predict(job, image, capsys):
    path, content = job
    options = {**content["options"], "prompts": "oracle", "prompter": None}
    stages = {name: stage for name, stage in content["stages"]["3"].items() if name != "prompter"}
    path.write_text(json.dumps({**content, "options": options, "stages": {"3": stages}}))
    assert run(image, "--checkpoint", path) == 2
    assert "this row takes its prompts from the truth; choose one with a prompter" in capsys.readouterr().err


def test_export_goes_with_a_job(checkpoint, image, capsys):
    assert run(image, "--checkpoint", checkpoint, "--save", "x.safetensors") == 2
    assert "--save and --seed go with a JOB" in capsys.readouterr().err
