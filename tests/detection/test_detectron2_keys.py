"""Names of detectron2 on the torchvision engine, for detectors of any depth."""

import pytest
import torch

from shared.detection.detector import Detector
from shared.detection.detectron2_keys import engine_name, to_engine, without_constants
from shared.detection.options import DetectorOptions
from shared.errors import DataError


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.bottom_up.encoder.norm.weight", "backbone.encoder.norm.weight"),
        ("backbone.fpn_lateral1.weight", "fpn.inner_blocks.0.0.weight"),
        ("backbone.fpn_output3.norm.running_mean", "fpn.layer_blocks.2.1.running_mean"),
        ("proposal_generator.rpn_head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("proposal_generator.rpn_head.conv.conv1.bias", "rpn.head.conv.1.0.bias"),
        ("proposal_generator.rpn_head.objectness_logits.bias", "rpn.head.cls_logits.bias"),
        ("roi_heads.box_head.conv2.norm.bias", "roi_heads.box_head.1.1.bias"),
        ("roi_heads.box_head.fc1.weight", "roi_heads.box_head.3.weight"),
        ("roi_heads.box_head.fc2.weight", "roi_heads.box_head.5.weight"),
        ("roi_heads.mask_head.deconv.bias", "roi_heads.mask_predictor.conv5_mask.bias"),
        ("roi_heads.keypoint_head.score_lowres.bias", None),
    ],
)
def test_names(theirs, ours):
    assert engine_name(theirs, finest=1, num_convs=2) == ours


def their_layout(model):
    """What detectron2 would write for the small detector: its names, and classes in its order."""
    renames = {
        "backbone.": "backbone.bottom_up.",
        "fpn.inner_blocks.0.": "backbone.fpn_lateral1.",
        "fpn.inner_blocks.1.": "backbone.fpn_lateral2.",
        "fpn.layer_blocks.0.": "backbone.fpn_output1.",
        "fpn.layer_blocks.1.": "backbone.fpn_output2.",
        "rpn.head.conv.0.": "proposal_generator.rpn_head.conv.",
        "rpn.head.cls_logits.": "proposal_generator.rpn_head.objectness_logits.",
        "rpn.head.bbox_pred.": "proposal_generator.rpn_head.anchor_deltas.",
        "roi_heads.box_head.0.": "roi_heads.box_head.conv1.",
        "roi_heads.box_head.2.": "roi_heads.box_head.fc1.",
        "roi_heads.mask_head.0.": "roi_heads.mask_head.mask_fcn1.",
        "roi_heads.mask_predictor.conv5_mask.": "roi_heads.mask_head.deconv.",
        "roi_heads.mask_predictor.mask_fcn_logits.": "roi_heads.mask_head.predictor.",
    }
    found = {}
    for name, value in model.state_dict().items():
        prefix = next((p for p in renames if name.startswith(p)), "")
        rest = name.removeprefix(prefix)
        if prefix and rest[:2] in ("0.", "1."):
            rest = rest[2:] if rest[0] == "0" else f"norm.{rest[2:]}"
        if "cls_score" in name:
            value = torch.cat([value[1:], value[:1]])
        elif "roi_heads.box_predictor.bbox_pred" in name:
            value = value[4:]
        elif "mask_fcn_logits" in name:
            value = value[1:]
        found[renames.get(prefix, "") + rest] = value
    return found


@pytest.fixture
def one_conv(two_maps, small):
    rpn = small.rpn.model_copy(update={"convs": 1})
    return Detector(two_maps, small.model_copy(update={"rpn": rpn}), 3)


def test_there_and_back(one_conv):
    state = to_engine(their_layout(one_conv), one_conv)
    for name, value in one_conv.state_dict().items():
        expected = value.clone()
        if "roi_heads.box_predictor.bbox_pred" in name:
            expected[:4] = 0  # of background, which nothing reads
        if "mask_fcn_logits" in name:
            expected[:1] = 0
        assert torch.equal(state[name], expected), name


def test_constants_of_old_versions_are_left_out():
    names = ["pixel_mean", "proposal_generator.anchor_generator.cell_anchors.3", "x.relative_position_index", "pixels"]
    assert list(without_constants(dict.fromkeys(names, torch.zeros(1)))) == ["pixels"]


def test_what_does_not_fit(one_conv):
    layout = their_layout(one_conv)
    with pytest.raises(DataError, match=r"f.pth: tensor 'roi_heads.extra' has no place in this detector"):
        to_engine({**layout, "roi_heads.extra": torch.zeros(1)}, one_conv, "f.pth")
    with pytest.raises(DataError, match=r"conv1.bias. has no place"):
        to_engine({**layout, "proposal_generator.rpn_head.conv.conv1.bias": torch.zeros(16)}, one_conv)
    first = next(iter(layout))
    with pytest.raises(DataError, match=r"has no tensor for 'backbone.fine.weight': another version or size"):
        to_engine({name: value for name, value in layout.items() if name != first}, one_conv)
    with pytest.raises(DataError, match=r"'backbone.fine.weight' is \(2,\), the model's is \(8, 3, 3, 3\)"):
        to_engine({**layout, first: torch.zeros(2)}, one_conv)


def test_mapping_needs_no_memory(two_maps):
    with torch.device("meta"):
        model = Detector(two_maps, DetectorOptions(top=False, rpn={"anchors": [8.0, 16.0]}), 80)
    with pytest.raises(DataError, match="has no tensor for"):
        to_engine({}, model)
