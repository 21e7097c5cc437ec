"""From options to detectors: what is drawn at test, what planning reads, and the counts of the studies."""

import subprocess
import sys

import pytest
import torch

from papers.mimdet.method import benchmarking, mimdet, released, released_benchmarking, sampled
from papers.mimdet.models.backbone import MimDet
from papers.mimdet.options import SIZES, MimDetRow
from papers.mimdet.studies import CostOptions, SizeOptions, encoder_cost, model_size
from shared.options import parse_options
from shared.segmentation.context import Context
from shared.segmentation.parts import parts_of

MODEL = {"num_classes": 3, "epochs": 1, "batch": 4, "lr": 1e-3}
CONTEXT = Context(torch.device("cpu"), 1)


class Detector(torch.nn.Module):
    """Stands for a detector around a backbone."""

    def __init__(self):
        super().__init__()
        self.bare_backbone = MimDet(SIZES["small"]).eval()


def test_all_tokens_are_looked_at_once_and_fewer_are_drawn(images):
    model = Detector()
    assert sampled(model, 1.0).sampling is None
    found = sampled(model, 0.5)
    assert found.model is model
    seen = []
    model.bare_backbone.encoder.blocks[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].shape[1]))
    maps = []
    with torch.no_grad():
        for seed in (1, 1, 2):
            with found.sampling(torch.Generator().manual_seed(seed)):
                maps.append(model.bare_backbone(*images)["c4"])
        model.bare_backbone(*images)
    assert seen == [32, 32, 32, 64]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_rows_return_their_part():
    model = Detector()
    parts = {"model": model}
    options = MimDetRow(model=MODEL, ratio_test=0.25)
    assert mimdet(parts, options, CONTEXT).sampling.args == (0.25,)
    assert released(parts, options, CONTEXT).sampling.args == (0.25,)
    for method in (benchmarking, released_benchmarking):
        found = method(parts, None, CONTEXT)
        assert found.model is model
        assert found.sampling is None


def test_the_share_at_test_trains_nothing_again():
    one, two = (
        parse_options("papers.mimdet.method:mimdet", {"model": MODEL, "ratio_test": ratio}) for ratio in (0.5, 1.0)
    )
    assert parts_of(one) == parts_of(two)
    assert parts_of(one)["model"].build == "papers.mimdet.training:build_detector_with"


def test_planning_needs_no_torch():
    code = (
        "import sys; from shared.options import parse_options; "
        f"parse_options('papers.mimdet.method:mimdet', {{'model': {MODEL}}}); "
        "parse_options('papers.mimdet.method:released', {'model': {'checkpoint': 'x'}}); "
        "parse_options('papers.mimdet.studies:model_size', {'size': 'vit_b'}); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("size", "millions", "left"),
    [("vit_b", 127.96, 512), ("vit_b_v1", 127.56, 0), ("benchmarking", 118.67, 0)],
)
def test_sizes_are_the_published_ones(size, millions, left):
    found = {metric.name: metric.value for metric in model_size(SizeOptions(size=size), 1).metrics}
    assert round(found["#params"] + left / 1e6, 2) == millions
    assert found["trainable"] - found["trainable_d2"] == 4 * 1025 + 257


def test_fewer_tokens_cost_less():
    found = [
        {metric.name: metric.value for metric in encoder_cost(CostOptions(ratio=ratio, image=(320, 352)), 1).metrics}
        for ratio in (0.25, 0.5, 1.0)
    ]
    assert [values["tokens"] for values in found] == [110, 220, 440]
    assert [values["scores"] for values in found] == [110**2, 220**2, 440**2]
    assert found[0]["TFLOPs"] < found[1]["TFLOPs"] < found[2]["TFLOPs"]
