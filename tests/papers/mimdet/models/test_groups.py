"""Learning-rate groups: every trained parameter once, in the right group, with the right decay."""

import pytest
import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.groups import benchmarking_groups, decays, grouped_optimizer, mimdet_groups, part_of
from papers.mimdet.options import SIZES, BenchmarkingOptions, RateOptions
from shared.detection.detector import Detector
from shared.detection.options import DetectorOptions
from shared.training.options import OptimizerOptions


@pytest.fixture(scope="module")
def detector():
    with torch.device("meta"):
        return Detector(MimDet(SIZES["vit_b"]), DetectorOptions(), 80)


def test_part_of_a_name_on_either_engine():
    for prefix in ("backbone.", "backbone.bottom_up."):
        assert part_of(f"{prefix}encoder.patch_embed.proj.0.0.weight") == "stem"
        assert part_of(f"{prefix}encoder.blocks.0.norm1.weight") == "encoder"
        assert part_of(f"{prefix}encoder.norm.weight") == "encoder"
        assert part_of(f"{prefix}decoder.decoder_blocks.0.norm1.weight") == "others"
        assert part_of(f"{prefix}upsampling.c2.0.weight") == "others"
    assert part_of("roi_heads.box_head.0.0.weight") == "others"


def test_groups_cover_every_trained_parameter_once(detector):
    groups = mimdet_groups(detector, 8e-5, 0.1, RateOptions())
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in detector.parameters()}
    assert len(groups) == 6
    numbers = {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert numbers["stem, decay"] + numbers["stem, no decay"] == 4_079_712
    assert numbers["encoder, decay"] + numbers["encoder, no decay"] == 85_056_000


@pytest.mark.parametrize(("multiplier", "rates"), [(2.0, (8e-5, 4e-5, 1.6e-4)), (3.5, (8e-5, 8e-5 / 3.5, 2.8e-4))])
def test_rates_of_the_recipe(detector, multiplier, rates):
    groups = mimdet_groups(detector, 8e-5, 0.1, RateOptions(multiplier=multiplier))
    found = {group["name"].split(",")[0]: group["lr"] for group in groups}
    assert found == pytest.approx(dict(zip(("stem", "encoder", "others"), rates, strict=True)))
    assert {group["weight_decay"] for group in groups if group["name"].endswith(", decay")} == {0.1}
    assert {group["weight_decay"] for group in groups if group["name"].endswith("no decay")} == {0.0}


def test_what_decays(detector):
    for name, parameter in detector.named_parameters():
        assert decays(name, parameter) == (parameter.ndim > 1), name  # no norm has a matrix


def test_frozen_parameters_are_in_no_group():
    model = MimDet(SIZES["small"])
    model.encoder.requires_grad_(False)
    groups = mimdet_groups(model, 1.0, 0.1, RateOptions())
    assert {group["name"] for group in groups} == {"others, decay", "others, no decay"}


def test_the_baselines_groups():
    with torch.device("meta"):
        model = Detector(Benchmarking(BenchmarkingOptions()), DetectorOptions(), 80)
    groups = {group["name"]: group for group in benchmarking_groups(model, 8e-5, 0.1)}
    names = {id(p): name for name, p in model.named_parameters()}
    spared = {names[id(p)] for p in groups["no decay"]["params"]}
    assert "backbone.windowed_rel_pos_bias.relative_position_bias_table" in spared
    assert "backbone.blocks.0.norm1.bias" in spared
    assert "fpn.inner_blocks.0.1.weight" in spared
    assert "backbone.blocks.0.attn.qkv.bias" not in spared  # biases decay, as detectron2's default has it
    assert len(spared) + len(groups["decay"]["params"]) == len(names)


def test_the_optimizer_steps_each_group_with_its_rate():
    model = MimDet(SIZES["small"])
    before = {name: value.clone() for name, value in model.named_parameters()}
    options = OptimizerOptions(kind="adamw", lr=1e-3, weight_decay=0.0)
    optimizer = grouped_optimizer(model, options, mimdet_groups(model, 1e-3, 0.0, RateOptions()))
    assert len(optimizer.param_groups) == 6
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    expected = {"stem": 1e-3, "encoder": 5e-4, "others": 2e-3}
    for name, parameter in model.named_parameters():
        moved = (before[name] - parameter).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, expected[part_of(name)]), rtol=1e-2, atol=1e-6)
