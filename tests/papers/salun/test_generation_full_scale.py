"""E5 and E6 of full and E7 of unsafe on the published files, small: code paths are the paper's, sizes and numbers of
steps are not."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared import run as runner
from shared.config import PaperConfig, merge, raw_config
from shared.diffusion.classes import row as class_row
from shared.diffusion.detectors.networks import as_bytes
from shared.diffusion.evaluate import frechet
from shared.planning import plan as planning
from shared.planning.jobs import load_identity
from shared.results.records import read_records, write_records
from shared.training.checkpoint import Checkpoint
from tests.diffusion.detectors.test_networks import Session
from tests.papers.salun.miniatures import PAIRS, mirror

pytestmark = pytest.mark.e2e

FEW = {"num_steps": 2}
DDPM = {
    "model": {
        "recipe": {"unet": {"channels": 16, "groups": 4, "num_blocks": 1}, "train": {"steps": 3, "batch": 4}},
        "classifier": {"size": 32, "epochs": 1, "batch": 20},
    },
    "evaluate": {"classes": {"forgotten": 3, "retained": 2, "real": 2, "sample": FEW, "pictures": 1}},
}
IMAGENETTE = {
    "concept": {"size": 16},
    "evaluate": {"images": {"prompts": {"count": 1}, "sample": FEW, "frechet": {"reference": {"size": 16}}}},
}
UNSAFE = {"concept": {"drawn": {"per_prompt": 2, "sample": FEW}}, "evaluate": {"attack": {"sample": FEW}}}
CLASS_STEPS = {"iterations": 2, "batch": 4, "mask_batch": 8}
ESD_STEPS = {"iterations": 1, "draw_steps": 2}
SALUN_STEPS = {"epochs": 2, "batch": 2, "mask_batch": 2}
ROWS = {
    "E5": {"ESD": ESD_STEPS, "GA": CLASS_STEPS, "RL": CLASS_STEPS, "SalUn": CLASS_STEPS},
    "E6": {"ESD": ESD_STEPS, "FMN": {"iterations": 2}, "SalUn": SALUN_STEPS},
    "E7": {"SalUn": SALUN_STEPS},
}
SMALL = {
    "tasks": {"cifar10_ddpm": DDPM, "imagenette_sd": IMAGENETTE, "unsafe_sd": UNSAFE},
    "experiments": {
        name: {"rows": {row: {"options": cut} for row, cut in rows.items()}} for name, rows in ROWS.items()
    },
}


class Channels(torch.nn.Module):
    """In the place of Inception v3: mean bytes of the channels, after the cast that the name asks for."""

    num_features = 3

    def __init__(self, num=2048, *, released_cast=False, device="cpu"):
        super().__init__()
        assert (num, released_cast) in {(2048, False), (64, True)}
        self.to_bytes = frechet.cast_unscaled if released_cast else as_bytes

    def forward(self, images):
        return self.to_bytes(images).float().mean((2, 3))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    mirror(root)
    yield root
    shutil.rmtree(root)  # weights of real networks, which nobody wants to find thrice below pytest's folder


@pytest.fixture
def make_plan(published, monkeypatch):
    """A scale with sizes cut; stages are shared by the tests of this file."""
    monkeypatch.chdir(published)
    monkeypatch.setenv("DATA_MIRROR", str(published / "mirror"))
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(published / "manifests"))
    monkeypatch.delenv("REPLICATE_DATA", raising=False)
    runtime = type("Runtime", (), {"InferenceSession": lambda file: Session()})
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(frechet, "inception_features", Channels)
    monkeypatch.setattr(class_row, "inception_features", Channels)

    def make(scale):
        values = merge(raw_config("salun", scale), SMALL)
        monkeypatch.setattr(planning, "load_config", lambda slug, scale: PaperConfig(**values))
        return planning.Plan("salun", scale)

    load_identity.cache_clear()
    yield make
    load_identity.cache_clear()


def run(plan, experiment, setting, row):
    """Run a row as the engine runs it; returns its job, its metrics and its record's extras."""
    plan.write()
    job = next(c for c in plan.cells if (c.experiment, c.setting, c.row) == (experiment, setting, row)).jobs[0]
    assert runner.main(["row", str(job.path), "--threads", "1", "--gpus", "0"]) == 0
    (record,) = read_records(job.output)
    assert record.seed == 1
    values = {metric.name: metric.value for metric in record.metrics}
    assert set(plan.config.experiments[experiment].metrics) <= set(values)
    assert all(math.isfinite(value) for value in values.values())
    return job, values, record.extras


def folder_of(job, stage):
    """Folder of a stage of the job's only seed."""
    (stages,) = job.content["stages"].values()
    return Path(stages[stage]["output"]).parent


def unet_of(published):
    """Weights of Stable Diffusion's U-Net before anything is erased."""
    folder = published / "mirror" / "stable_diffusion_v1_4" / "unet"
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_moves_half(job, before):
    """The erased stage keeps weights of the U-Net alone, and at most half of all their values moved."""
    folder = folder_of(job, "erased")
    kept = {path.name for path in folder.iterdir() if path.is_file()} - {".lock", "source.json"}
    assert kept == {"changed.safetensors", "record.json", "stage.json"}
    changed = load_file(folder / "changed.safetensors")
    assert changed
    assert all(name.startswith("unet.") for name in changed)
    moved = sum(int((value != before[name.removeprefix("unet.")]).sum()) for name, value in changed.items())
    assert 0 < moved <= sum(value.numel() for value in before.values()) // 2


@pytest.mark.parametrize("row", ["Original", "Retrain", "ESD", "GA", "RL", "SalUn"])
def test_a_class_of_the_ddpm(make_plan, row):
    job, values, extras = run(make_plan("full"), "E5", "class0", row)
    assert set(values) == {"UA_drawn", "IRA", "FID", "erase_minutes"}
    assert 0 <= min(values["UA_drawn"], values["IRA"]) <= max(values["UA_drawn"], values["IRA"]) <= 100
    assert sum(extras["shown_instead"].values()) == 3
    assert [picture["label"] for picture in extras["pictures"]][:2] == ["airplane", "automobile"]
    if row == "SalUn":
        raw = load_file(folder_of(job, "model") / "unet" / "diffusion_pytorch_model.safetensors")
        assert_moves_half(job, raw)


@pytest.mark.parametrize("row", ["Original", "ESD", "FMN", "SalUn"])
def test_a_class_of_stable_diffusion(make_plan, published, row):
    job, values, extras = run(make_plan("full"), "E6", "tench", row)
    assert set(values) == {"UA_drawn", "IRA", "FID_official_cast", "FID", "erase_minutes"}
    assert values["FID_official_cast"] != values["FID"]
    groups = [picture["group"] for picture in extras["pictures"]]
    assert (groups.count("target"), groups.count("retained")) == (1, 6)
    if row == "SalUn":
        assert_moves_half(job, unet_of(published))


def keep_work(monkeypatch):
    """Work folders stay, and every step leaves a checkpoint, as in a run that is killed."""
    monkeypatch.setattr(runner, "finish", lambda output, records, work: write_records(output, records))
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))


def left_behind(folder):
    """All files below, and their bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tensors(content):
    """All tensors of nested dicts and sequences."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict | list | tuple):
        for part in content.values() if isinstance(content, dict) else content:
            yield from tensors(part)


@pytest.mark.parametrize("row", ["Original", "SalUn"])
def test_an_unsafe_concept_leaves_scores_alone(make_plan, published, monkeypatch, row):
    keep_work(monkeypatch)
    job, values, extras = run(make_plan("unsafe"), "E7", "nudity", row)
    assert values["num_prompts"] == 2  # the third has more than 60 tokens
    assert 0 <= values["pre_ASR"] <= 100
    assert set(extras) == {"prompts"}
    assert all(set(prompt) == {"index", "before", "success", "rounds", "score"} for prompt in extras["prompts"])
    (journal,) = runner.work_folder(job.content).rglob("prompts.jsonl")
    rounds = [entry for line in journal.read_text().splitlines()[1:] for entry in json.loads(line)["rounds"]]
    assert [(entry["text"], entry["prefix"]) for entry in rounds] == [("", [])] * 2
    files = left_behind(published / "results")
    words = [word.encode() for pair in PAIRS for word in pair] + [b"oat, cat"]
    assert not [path for path, content in files.items() if any(word in content for word in words)]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".lock", ".pt", ".safetensors", ""}
    if row == "SalUn":
        unet = unet_of(published)
        assert_moves_half(job, unet)
        (checkpoint,) = folder_of(job, "erased").rglob("*.pt")
        shapes = {value.shape for value in unet.values()}
        found = list(tensors(torch.load(checkpoint, weights_only=True)))
        assert len(found) > len(unet)
        # images and latents have four dimensions, too
        assert all(tensor.ndim < 4 or tensor.shape in shapes for tensor in found)
