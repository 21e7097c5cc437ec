"""The optional engine: one clear line where it is absent; where it is installed, the same detector as ours."""

import importlib.util

import pytest
import torch

from shared.detection.batches import example_batch
from shared.detection.detect import detect
from shared.detection.detector import Detector, build_detector, detection_loss
from shared.detection.detectron2_keys import to_engine
from shared.detection.examples import SourceExamples
from shared.detection.options import SameSize
from shared.detection.scenes import make_scenes
from shared.errors import ConfigError

present = importlib.util.find_spec("detectron2") is not None
needs_it = pytest.mark.skipif(not present, reason="detectron2 is not installed (envs/detectron2.yaml)")


@pytest.mark.skipif(present, reason="detectron2 is installed")
def test_absent_it_says_so_in_one_line(two_maps, small):
    with pytest.raises(ConfigError, match=r"engine: detectron2 cannot be used here .*envs/detectron2.yaml") as caught:
        build_detector(two_maps, small.model_copy(update={"engine": "detectron2"}), 3)
    assert "\n" not in str(caught.value)
    assert isinstance(build_detector(two_maps, small, 3), Detector)


@pytest.fixture
def other(two_maps, small):
    return build_detector(two_maps, small.model_copy(update={"engine": "detectron2"}), 3)


@needs_it
def test_names_are_those_of_released_files(other, two_maps):
    names = set(other.state_dict())
    for name in ("backbone.bottom_up.fine.weight", "backbone.fpn_lateral1.weight", "roi_heads.box_head.fc1.weight"):
        assert name in names
    assert other.bare_backbone is two_maps


@needs_it
def test_trains_and_detects(other, pixels):
    scenes = make_scenes(2, 0)
    examples = SourceExamples(scenes)
    loss = detection_loss(other.train(), example_batch([examples[0], examples[1]], pixels))
    loss.backward()
    assert torch.isfinite(loss)
    assert len(detect(other, list(scenes.images), SameSize(), pixels)) == 2


@needs_it
def test_both_engines_find_the_same(other, two_maps, small, pixels):
    mapped = Detector(two_maps, small, 3)
    mapped.load_state_dict(to_engine(other.state_dict(), mapped))
    images = list(make_scenes(3, 0).images)
    for model in (other, mapped):
        model.eval()
    theirs, ours = detect(other, images, SameSize(), pixels), detect(mapped, images, SameSize(), pixels)
    for a, b in zip(theirs, ours, strict=True):
        assert len(a) == len(b)
        torch.testing.assert_close(torch.from_numpy(a.boxes), torch.from_numpy(b.boxes), atol=1e-2, rtol=0)
