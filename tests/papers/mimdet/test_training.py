"""MIMDet, its baseline and a small MAE as parts: what they start from, their learning rates, what a seed decides."""

import re

import pydantic
import pytest
import torch

from papers.mimdet import training
from papers.mimdet.models.pretraining import MaskedAutoencoder
from papers.mimdet.models.weights import load_mae
from papers.mimdet.options import (
    SIZES,
    BenchmarkingTraining,
    MaeTraining,
    MimDetTraining,
    PretrainOptions,
    ReleasedMimDet,
)
from shared.detection.scenes import make_scenes
from shared.options import explain, parse_options
from shared.segmentation.context import Context
from shared.segmentation.parts import parts_of

SMALL = SIZES["small"]
PIXELS = {"mean": (114.75,) * 3, "std": (63.75,) * 3, "divisor": 16}
HEADS = {
    "width": 16,
    "top": False,
    "norm": "batch",
    "rpn": {"anchors": [8.0, 12.0, 16.0, 28.0], "samples": 32, "pre_nms": (100, 100), "post_nms": (30, 30)},
    "roi": {"box_bins": 5, "mask_bins": 7, "sampling": 1, "samples": 16, "box_convs": [16], "fc": [16],
            "mask_convs": [16], "mask_hidden": 16, "canonical_size": 16.0, "canonical_level": 2},
}  # fmt: skip
RECIPE = {"num_classes": 3, "detector": HEADS, "pixels": PIXELS, "epochs": 1, "batch": 4, "lr": 1e-3}
MAE = {"backbone": SMALL, "pixels": PIXELS, "epochs": 3, "batch": 8, "lr": 1e-3}


@pytest.fixture
def context(monkeypatch):
    scenes = make_scenes(8, 0)
    monkeypatch.setattr(Context, "source", lambda self, name: scenes)

    def make(seed=1):
        return Context(torch.device("cpu"), seed)

    return make


def differing(one, two):
    """Names of tensors in which two models of the same form differ."""
    other = two.state_dict()
    return {name for name, value in one.state_dict().items() if not torch.equal(value, other[name])}


def trained(context, base=None, **changes):
    options = MimDetTraining(**{**RECIPE, "backbone": SMALL, **changes})
    model = training.build_detector_with(None, options, 1)
    run = context()
    training.train_mimdet(model, base, options, run)
    return model, run


def test_a_seed_makes_the_weights_and_leaves_torchs_generator_alone():
    options = MimDetTraining(**RECIPE, backbone=SMALL)
    before = torch.get_rng_state()
    one, same, other = (training.build_detector_with(None, options, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not differing(one, same)
    assert differing(one, other)


def test_a_training_is_repeatable_whatever_ran_before_it(context):
    one, run = trained(context)
    assert run.fits[0].steps == 2
    torch.rand(100)
    again, _ = trained(context)
    assert not differing(one, again)
    sampled_all, _ = trained(context, backbone=SMALL.model_copy(update={"ratio_train": 1.0}))
    assert differing(one, sampled_all)


def test_three_groups_learn_by_their_own_rates(context, monkeypatch):
    seen = {}

    def keep(model, options, context, optimizer):
        seen.update({group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups})

    monkeypatch.setattr(training, "train_detector", keep)
    trained(context, lr=8e-5, rates={"multiplier": 2.0})
    rates = {name.split(",")[0]: lr for name, (lr, _) in seen.items()}
    assert rates == pytest.approx({"stem": 8e-5, "encoder": 4e-5, "others": 16e-5})
    assert {decay for name, (_, decay) in seen.items() if name.endswith("no decay")} == {0.0}
    assert {decay for name, (_, decay) in seen.items() if not name.endswith("no decay")} == {0.1}


def test_the_autoencoder_of_the_run_is_where_encoder_and_decoder_start(context, monkeypatch):
    monkeypatch.setattr(training, "train_detector", lambda *arguments: None)
    base = MaskedAutoencoder(SMALL, PretrainOptions())
    fresh = training.build_detector_with(None, MimDetTraining(**RECIPE, backbone=SMALL), 1)
    started, _ = trained(context, base)
    names = differing(started, fresh)
    expected = training.build_detector_with(None, MimDetTraining(**RECIPE, backbone=SMALL), 1)
    load_mae(expected.bare_backbone, base.mae_state())
    assert not differing(started, expected)
    assert {name.split(".")[1] for name in names} == {"encoder", "decoder"}
    assert not any("patch_embed" in name or "conv_feat_proj" in name for name in names)
    half, _ = trained(context, base, load_decoder=False)
    assert {name.split(".")[1] for name in differing(half, fresh)} == {"encoder"}


def test_a_published_file_is_read_like_the_runs_own(context, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "train_detector", lambda *arguments: None)
    monkeypatch.setattr(training, "checkpoint_file", lambda name: tmp_path / f"{name}.pth")
    base = MaskedAutoencoder(SMALL, PretrainOptions())
    torch.save({"model": base.mae_state()}, tmp_path / "mae.pth")
    assert not differing(trained(context, mae="mae")[0], trained(context, base)[0])
    assert MimDetTraining(**RECIPE, mae="mae").manifests() == ["mae"]


def test_the_baseline_starts_from_maes_encoder(context, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "train_detector", lambda *arguments: None)
    monkeypatch.setattr(training, "checkpoint_file", lambda name: tmp_path / f"{name}.pth")
    size = {"dim": 64, "depth": 4, "heads": 4, "patch": 8, "image": 64, "window": 4, "drop_path": 0.0}
    options = BenchmarkingTraining(**RECIPE, backbone=size, mae="mae")
    base = MaskedAutoencoder(SMALL, PretrainOptions())
    torch.save({"model": base.mae_state()}, tmp_path / "mae.pth")
    model = training.build_detector_with(None, options, 1)
    training.train_benchmarking(model, None, options, context())
    assert torch.equal(model.bare_backbone.blocks[3].attn.qkv.weight, base.encoder.blocks[3].attn.qkv.weight)


def test_the_autoencoder_learns_from_images_alone(context):
    options = MaeTraining(**{**MAE, "epochs": 20, "lr": 3e-3})
    model = training.build_mae(None, options, 1)
    run = context()
    training.train_mae(model, None, options, run)
    history = [row["loss"] for row in run.fits[0].history]
    assert history[-1] < history[0]
    assert run.fits[0].steps == 20


def test_a_part_among_a_parts_options_is_its_base():
    part = MimDetTraining(**RECIPE, backbone=SMALL, pretrain=MAE)
    assert list(parts_of(part)) == ["pretrain"]
    assert part.manifests() == []
    assert ReleasedMimDet(checkpoint="mimdet_vit_b").sets() == []


@pytest.mark.parametrize("kind", ["constant", "cosine", "multistep"])
def test_options_can_be_read_again_from_their_own_values(kind):
    schedule = {"kind": kind, **({"milestones": (1,)} if kind == "multistep" else {})}
    for part in (
        MimDetTraining(**RECIPE, backbone=SMALL, pretrain={**MAE, "schedule": schedule}, schedule=schedule),
        BenchmarkingTraining(**RECIPE, schedule=schedule),
        ReleasedMimDet(checkpoint="mimdet_vit_b"),
    ):
        assert parse_options(part.train, part.model_dump(mode="json")) == part


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mae": "x", "pretrain": MAE}, "a detector starts from one of them"),
        ({"backbone": SMALL.model_copy(update={"ratio_test": 0.5})}, "set the row's own ratio_test"),
        ({"pretrain": {**MAE, "backbone": SIZES["vit_b"]}}, r"pretrain\.backbone\.dim does not fit"),
        (
            {"pretrain": {**MAE, "backbone": SMALL.model_copy(update={"decoder_depth": 1})}},
            r"pretrain\.backbone\.decoder_depth does not fit",
        ),
    ],
)
def test_options_that_contradict_each_other_are_one_line(changes, problem):
    with pytest.raises(pydantic.ValidationError) as caught:
        MimDetTraining(**{**RECIPE, "backbone": SMALL, **changes})
    assert re.search(problem, explain(caught.value, MimDetTraining))
