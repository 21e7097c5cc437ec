"""Mask R-CNN as a part: seeds, weights of the backbone, and a training on scenes."""

import pytest
import torch

from shared.detection import baseline
from shared.detection.options import DetectorOptions, MaskRcnnTraining
from shared.segmentation.context import Context


@pytest.fixture
def options(small):
    rpn = {**small.rpn.model_dump(), "anchors": [8.0, 16.0, 32.0, 64.0]}
    heads = DetectorOptions.model_validate({**small.model_dump(), "rpn": rpn})
    return MaskRcnnTraining(num_classes=3, detector=heads, epochs=2, batch=4, lr=1e-3, pixels={"divisor": 32})


@pytest.fixture
def context(monkeypatch):
    from shared.detection.scenes import make_scenes

    monkeypatch.setattr(Context, "source", lambda self, name: make_scenes(8, 0))

    def make(seed=1):
        return Context(torch.device("cpu"), seed)

    return make


def equal(one, two):
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_seed_makes_the_weights_and_leaves_torchs_generator_alone(options):
    before = torch.get_rng_state()
    one, same, other = (baseline.build(None, options, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(one, same)
    assert not equal(one, other)


def test_training_depends_on_the_seed_alone(options, context):
    torch.manual_seed(3)
    one = baseline.build(None, options, 1)
    run = context()
    baseline.train(one, None, options, run)
    assert run.fits[0].steps == 4
    assert run.fits[0].history[-1]["loss"] > 0
    torch.manual_seed(99)  # what another job left behind
    again = baseline.build(None, options, 1)
    baseline.train(again, None, options, context())
    assert equal(one, again)
    other = baseline.build(None, options, 1)
    baseline.train(other, None, options, context(2))
    assert not equal(one, other)


def test_published_weights_fill_the_backbone(options, context, monkeypatch, tmp_path):
    from torchvision.models import resnet18

    weights = resnet18(weights=None).state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    monkeypatch.setattr(baseline, "checkpoint_file", lambda name: tmp_path / f"{name}.pth")
    monkeypatch.setattr(baseline, "train_detector", lambda *arguments: None)
    model = baseline.build(None, options, 1)
    baseline.train(model, None, options.model_copy(update={"weights": "resnet18"}), context())
    own = model.bare_backbone.state_dict()
    name = next(name for name in own if name.endswith("conv1.weight"))
    assert torch.equal(own[name], weights["conv1.weight"])
