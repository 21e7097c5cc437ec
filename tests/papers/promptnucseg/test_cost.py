"""Cost: parameters and multiply-adds against counts by hand and the published ones."""

import pytest

from papers.promptnucseg.cost import CostOptions, cost
from shared.errors import ConfigError
from shared.segmentation.sam.options import SIZES


@pytest.fixture(scope="module")
def vit_b():
    return {metric.name: metric for metric in cost(CostOptions(), 0).metrics}


def test_parameters_are_those_published_without_the_position_table(vit_b):
    """145.6 M in the paper; a counter of layers overlooks the table of 64 x 64 positions, a parameter without one."""
    assert vit_b["params"].value - 64 * 64 * 768 / 1e6 == pytest.approx(145.6, abs=0.15)


def test_multiply_adds_are_those_published(vit_b):
    assert vit_b["MACs"].value == pytest.approx(59.0, rel=0.02)


def test_a_prompt_costs_a_little_and_the_image_most(vit_b):
    few = cost(CostOptions(prompts=1), 0)
    share = 1 - few.metrics[1].value / vit_b["MACs"].value
    assert 0 < share < 0.2


def test_fps_is_measured_only_if_asked_for(vit_b):
    assert set(vit_b) == {"params", "MACs"}


def test_fps_of_the_smallest_model(monkeypatch):
    monkeypatch.setitem(SIZES, "vit_b_256", SIZES["small_patch8"])
    found = {metric.name: metric for metric in cost(CostOptions(prompts=3, images=1), 0).metrics}
    assert found["FPS"].value > 0
    assert (found["FPS"].unit, found["FPS"].better) == ("fps", "higher")


def test_an_unknown_size_is_one_line():
    with pytest.raises(ConfigError, match="vit_b_256"):
        cost(CostOptions(size="vit_b_265"), 0)
