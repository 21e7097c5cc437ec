"""Sizes against the published ones, and that speed is measured."""

import pytest

from papers.hq_sam import studies
from papers.hq_sam.studies import SizeOptions, SpeedOptions, model_size, model_speed
from shared.segmentation.sam.options import sam_size


def values(findings):
    return {metric.name: metric.value for metric in findings.metrics}


@pytest.mark.parametrize(
    ("size", "new", "learnable", "total"),
    [
        ("vit_b", 1_071_104, 4.1, 362.1),
        ("vit_l", 1_333_248, 5.1, 1196.1),
        ("vit_h", 1_595_392, 6.1, 2452.1),
        ("tiny_vit", 448_512, 1.7, 40.3),
    ],
)
def test_sizes_of_hq_sam_are_the_published_ones(size, new, learnable, total):
    found = values(model_size(SizeOptions(size=size, adds="hq"), 1))
    assert found["new parameters"] == new
    assert found["learnable params"] == pytest.approx(learnable, abs=0.05)
    # the paper adds rounded numbers: 358 + 4.1
    assert found["total params"] == pytest.approx(total, abs=0.6)
    sam = values(model_size(SizeOptions(size=size), 1))
    assert sam["new parameters"] == 0
    assert sam["learnable params"] == sam["total params"] == pytest.approx(found["total params"] - 4 * new / 2**20)
    assert found["overhead"] == pytest.approx(100 * 4 * new / 2**20 / sam["total params"])


@pytest.mark.parametrize(("adds", "learnable"), [("lora", 1.5), ("adapters", 12.0)])
def test_sizes_of_lora_and_adapters_are_the_published_ones(adds, learnable):
    assert values(model_size(SizeOptions(size="vit_l", adds=adds), 1))["learnable params"] == pytest.approx(learnable)


def test_speed_is_positive_and_needs_no_published_size(monkeypatch):
    monkeypatch.setattr(studies, "sam_size", lambda name: sam_size("small_patch8"))
    found = values(model_speed(SpeedOptions(size="vit_b", adds="hq", repeats=2), 1))
    assert found["FPS"] > 0
    assert 0 < found["memory"] < 100
