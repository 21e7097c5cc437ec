"""The full configuration on miniatures of COCO-20i, of Stable Diffusion 2.1's folder and of the authors' release, in
their layouts; a scale of values cuts sizes."""

import copy
import io
import json
import pickle
import runpy
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from papers.diffews import checkpoint
from papers.diffews.network import Diffews
from papers.diffews.options import FineTuning, StableDiffusion
from papers.diffews.pretraining import load_stable_diffusion
from papers.diffews.training import build
from shared.paths import ROOT
from tests.diffusion.conftest import stable_diffusion_folder

workplace = runpy.run_path(str(ROOT / "tests/e2e/conftest.py"))
globals().update({name: workplace[name] for name in ("template", "project")})

QUICK = {"threads": 1, "memory_mb": 4000, "runtime_min": 10, "gpu": 0}
FEW = {"evaluate": {"side": 16, "draw": {"number": 6}}}
# `base: full`: everything that is not named here, code paths included, is the paper's protocol.
MINIATURE = {
    "base": "full",
    "seeds": {"test": [0]},
    "resources": QUICK,
    "stage_resources": QUICK,
    "tasks": dict.fromkeys(("fold0", "fold1", "fold2", "fold3", "pascal0", "pascal1", "pascal2", "pascal3"), FEW),
    "experiments": {
        "E1": {"rows": {"DiffewS": {"options": {"side": 16}}}},
        "E2": {"rows": {"released": {"options": {"side": 16}}}},
        "E4": {"rows": {"concat": {"options": {"model": {"side": 16, "steps": 2}}}}},
        "E6": {"rows": {"MN2M": {"options": {"steps": 2, "ensemble": 2}}}},
    },
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return stable_diffusion_folder(tmp_path_factory.mktemp("published") / "sd")


def test_published_weights_bring_their_autoencoder_and_the_empty_prompt(folder):
    latent = load_stable_diffusion(StableDiffusion(manifest=str(folder)))
    assert latent.text.shape == (2, 12)
    assert latent.padded_text.shape == (77, 12)
    torch.testing.assert_close(latent.text, latent.padded_text[:2])  # the text encoder looks back only
    picture = torch.rand(2, 3, 16, 16) * 2 - 1
    assert latent.encode(picture).shape == (2, 4, 8, 8)
    assert latent.decode(latent.encode(picture)).shape == (2, 3, 16, 16)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    drawn = latent.encode(picture, generators)
    again = latent.encode(picture[1:], [torch.Generator().manual_seed(2)])
    torch.testing.assert_close(drawn[1:], again)
    assert not torch.equal(drawn, latent.encode(picture))


def test_fresh_weights_keep_the_published_autoencoder(folder):
    options = FineTuning(start=StableDiffusion(manifest=str(folder)), side=16, pretrained=False)
    fresh, known = build(None, options, 1), build(None, options.model_copy(update={"pretrained": True}), 1)
    assert not torch.equal(fresh.latent.unet.conv_in.weight, known.latent.unet.conv_in.weight)
    for name, value in known.latent.codec.state_dict().items():
        assert torch.equal(value, fresh.latent.codec.state_dict()[name])


def test_a_released_folder_is_what_the_tool_takes(folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(io.BytesIO(release(folder))) as packed:
        packed.extractall(tmp_path)
    monkeypatch.setattr(checkpoint, "StableDiffusion", lambda: StableDiffusion(manifest=str(folder)))
    found = checkpoint.load(tmp_path / "incontext", torch.device("cpu"))
    other = checkpoint.load(tmp_path / "coco_fold0", torch.device("cpu"))
    assert (found.side, found.answering.threshold, found.answering.tau) == (512, "relative", 0.25)
    assert not torch.equal(found.model.latent.unet.conv_out.bias, other.model.latent.unet.conv_out.bias)


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


def picture(pixels, kind):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def coco_20i():
    """Twelve images of each of the classes 0 to 5: a bright square; classes 0 and 4 are tested in fold 0, 1 and 5 in
    fold 1."""
    files, listed, random = {}, {}, np.random.default_rng(0)
    for label in range(6):
        for number in range(12):
            name = f"train2014/{label}_{number}"
            pixels, mask = random.integers(0, 80, (20, 24, 3), dtype=np.uint8), np.zeros((20, 24), np.uint8)
            pixels[5:15, 6:18, label % 3], mask[5:15, 6:18] = 250, label + 1
            files |= {f"{name}.jpg": picture(pixels, "JPEG"), f"annotations/{name}.png": picture(mask, "PNG")}
            listed.setdefault(label, []).append(f"{name}.jpg")
    for fold in range(4):
        for part in ("trn", "val"):
            kept = {c: names for c, names in listed.items() if (c % 4 == fold) == (part == "val")}
            files[f"splits/{part}/fold{fold}.pkl"] = pickle.dumps(kept)
    return zipped(files)


def release(folder):
    """Five U-Nets, each a little different from the published one."""
    start = StableDiffusion(manifest=str(folder))
    model = Diffews(load_stable_diffusion(start), FineTuning(start=start, side=16))
    files = {}
    for number, name in enumerate(("coco_fold0", "coco_fold1", "coco_fold2", "coco_fold3", "incontext")):
        unet = copy.deepcopy(model.latent.unet)
        with torch.no_grad():
            unet.conv_out.bias.add_(0.1 * number - 0.5)
        tensors = {key: value.contiguous() for key, value in unet.state_dict().items()}
        files[f"{name}/unet/diffusion_pytorch_model.safetensors"] = save(tensors)
        files[f"{name}/unet/config.json"] = "{}"
    return zipped(files)


@pytest.fixture
def miniature(project, tmp_path, folder):
    """The project with everything in a mirror, as a person would bring it."""
    mirror = tmp_path / "mirror"
    stable = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, content in (
        ("coco_20i", coco_20i()),
        ("stable_diffusion_2_1", zipped(stable)),
        ("diffews_released", release(folder)),
    ):
        (mirror / name).mkdir(parents=True)
        (mirror / name / f"{name}.zip").write_bytes(content)
    room = project.folder / "papers" / "diffews"
    (room / "config" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    (room / "Snakefile").write_text((ROOT / "papers" / "diffews" / "Snakefile").read_text())
    project.environment["DATA_MIRROR"] = str(mirror)
    return project


@pytest.mark.e2e
def test_trained_and_released_rows_run_on_the_public_layouts(miniature):
    results = "results/diffews/miniature/records"
    cells = [
        *(f"core/novel/{row}" for row in ("none", "MN2M", "FSA-concat")),
        "E2/fold0-5/DiffewS-n",
        "E2/fold1-1/released",
        "E3/rel0.4/DiffewS",
        "E6/novel/MI2M-b2",
        "E7-fusion/novel/QKV",
        "E8/coco-5/sampled",
        "E9/novel/random",
    ]
    targets = {cell: f"{results}/{cell}/s0.json" for cell in cells}
    miniature.snakemake("--config", "scale=miniature", "--", *targets.values())
    for target in targets.values():
        record = json.loads((miniature.folder / target).read_text())["records"][0]
        found = {metric["name"]: metric["value"] for metric in record["metrics"]}
        assert 0 <= found["mIoU"] <= 100
    job = json.loads((miniature.folder / targets["E2/fold0-5/DiffewS-n"].replace("records", "jobs")).read_text())
    assert job["options"]["model"]["shots"] == 7
    assert job["task"]["evaluate"]["draw"]["shots"] == 5
