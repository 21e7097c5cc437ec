"""The released detectors' layout, written down name by name, on the torchvision engine."""

import pytest
import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.released import load_released
from papers.mimdet.options import SIZES, BenchmarkingOptions
from shared.detection.detector import Detector
from shared.detection.detectron2_keys import to_engine
from shared.detection.options import DetectorOptions
from shared.errors import DataError


def norm(prefix, width):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}norm.{name}": (width,) for name in names} | {f"{prefix}norm.num_batches_tracked": ()}


def block(prefix, dim):
    shapes = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": (dim,)}
    shapes |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    found = {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}
    return found | {f"{prefix}{name}.bias": shape[:1] for name, shape in shapes.items()}


def encoder_shapes(options):
    top, D = "backbone.bottom_up.encoder.", options.dim
    shapes = {f"{top}pos_embed": (1, 1 + options.grid**2, D), f"{top}norm.weight": (D,), f"{top}norm.bias": (D,)}
    before = 3
    for stage in range(4):
        width = D // 2 ** (3 - stage)
        shapes[f"{top}patch_embed.proj.{stage}.0.weight"] = (width, before, 3, 3)
        shapes |= {f"{top}patch_embed.proj.{stage}.1.{end}": (width,) for end in ("weight", "bias")}
        before = width
    shapes |= {f"{top}patch_embed.proj.3.3.weight": (D, D, 1, 1), f"{top}patch_embed.proj.3.3.bias": (D,)}
    for index in range(options.depth):
        shapes |= block(f"{top}blocks.{index}.", D)
    return shapes


def decoder_shapes(options):
    top, D, C = "backbone.bottom_up.decoder.", options.dim, options.decoder_dim
    shapes = {f"{top}decoder_pos_embed": (1, 1 + options.grid**2, C), f"{top}decoder_embed.weight": (C, D)}
    shapes |= {f"{top}{name}": (C,) for name in ("decoder_embed.bias", "decoder_norm.weight", "decoder_norm.bias")}
    if options.fill == "conv":
        shapes |= {f"{top}conv_feat_proj.weight": (C, D), f"{top}conv_feat_proj.bias": (C,)}
    else:
        shapes[f"{top}mask_token"] = (1, 1, C)
    for index in range(options.decoder_depth):
        shapes |= block(f"{top}decoder_blocks.{index}.", C)
    return shapes


def head_shapes(channels, num_classes=80, width=256, fc=1024):
    shapes = {}
    for level, before in enumerate(channels, 2):
        shapes[f"backbone.fpn_lateral{level}.weight"] = (width, before, 1, 1)
        shapes[f"backbone.fpn_output{level}.weight"] = (width, width, 3, 3)
        for part in ("lateral", "output"):
            shapes |= norm(f"backbone.fpn_{part}{level}.", width)
    rpn = "proposal_generator.rpn_head."
    layers = {"conv.conv0": (width, width, 3, 3), "conv.conv1": (width, width, 3, 3)}
    layers |= {"objectness_logits": (3, width, 1, 1), "anchor_deltas": (12, width, 1, 1)}
    weights = {f"{rpn}{name}": shape for name, shape in layers.items()}
    for index in range(1, 5):
        shapes[f"roi_heads.box_head.conv{index}.weight"] = (width, width, 3, 3)
        shapes[f"roi_heads.mask_head.mask_fcn{index}.weight"] = (width, width, 3, 3)
        shapes |= norm(f"roi_heads.box_head.conv{index}.", width)
        shapes |= norm(f"roi_heads.mask_head.mask_fcn{index}.", width)
    weights["roi_heads.box_head.fc1"] = (fc, width * 49)
    weights["roi_heads.box_predictor.cls_score"] = (num_classes + 1, fc)
    weights["roi_heads.box_predictor.bbox_pred"] = (4 * num_classes, fc)
    weights["roi_heads.mask_head.deconv"] = (width, width, 2, 2)
    weights["roi_heads.mask_head.predictor"] = (num_classes, width, 1, 1)
    for name, shape in weights.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def file_shapes(options):
    return encoder_shapes(options) | decoder_shapes(options) | head_shapes(options.channels)


BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "pos_embed")
TOTALS = {"vit_b": 124_753_488, "vit_l": 345_490_544, "vit_b_v1": 124_360_272, "vit_l_v1": 344_966_256}


def on_meta(shapes):
    return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", TOTALS)
def test_every_tensor_of_the_file_and_of_the_model_has_its_place(name):
    shapes = file_shapes(SIZES[name])
    learned = sum(torch.Size(shape).numel() for key, shape in shapes.items() if not key.endswith(BUFFERS))
    assert learned == TOTALS[name]
    with torch.device("meta"):
        model = Detector(MimDet(SIZES[name]), DetectorOptions(), 80)
    state = to_engine(on_meta(shapes), model)
    own = model.state_dict()
    assert state.keys() == own.keys()
    assert all(state[key].shape == own[key].shape for key in own)


def test_the_baselines_file_has_its_place():
    options = BenchmarkingOptions()
    top, D = "backbone.bottom_up.", options.dim
    shapes = {f"{top}pos_embed": (1, 4096, D), f"{top}patch_embed.proj.weight": (D, 3, 16, 16)}
    shapes[f"{top}patch_embed.proj.bias"] = (D,)
    for part in ("0.0", "0.3", "1"):
        shapes |= {f"{top}ms_adaptor.{part}.weight": (D, D, 2, 2), f"{top}ms_adaptor.{part}.bias": (D,)}
    shapes |= {f"{top}ms_adaptor.0.1.weight": (D,), f"{top}ms_adaptor.0.1.bias": (D,)}
    for kind, side in (("windowed", 16), ("global", 64)):
        shapes[f"{top}{kind}_rel_pos_bias.relative_position_bias_table"] = ((2 * side - 1) ** 2, 12)
        shapes[f"{top}{kind}_rel_pos_bias.relative_position_index"] = (side**2, side**2)
    for index in range(12):
        shapes |= block(f"{top}blocks.{index}.", D)
    with torch.device("meta"):
        model = Detector(Benchmarking(options), DetectorOptions(), 80)
    state = to_engine(on_meta(shapes | head_shapes(options.channels)), model)
    assert state.keys() == model.state_dict().keys()


def small_file(changed, tmp_path, **changes):
    """A released file of a small backbone, strides 4 to 32, with three classes; its options and tensors."""
    options = changed(stages=4, dim=32, depth=1, heads=2, grid=4, decoder_dim=16, decoder_depth=1, **changes)
    shapes = encoder_shapes(options) | decoder_shapes(options) | head_shapes(options.channels, 3, width=8, fc=12)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    path = tmp_path / "model.pth"
    torch.save({"model": tensors, "iteration": 7}, path)
    return path, options, tensors


def detector(options, num_classes=3):
    roi = {"box_convs": [8] * 4, "mask_convs": [8] * 4, "mask_hidden": 8, "fc": [12]}
    return Detector(MimDet(options), DetectorOptions(norm="batch", width=8, roi=roi), num_classes)


def test_values_and_the_order_of_the_classes(changed, tmp_path):
    path, options, tensors = small_file(changed, tmp_path)
    model = detector(options)
    load_released(model, path)
    heads, given = model.roi_heads, {name.removeprefix("roi_heads."): value for name, value in tensors.items()}
    scores = given["box_predictor.cls_score.weight"]
    assert torch.equal(heads.box_predictor.cls_score.weight[0], scores[3])
    assert torch.equal(heads.box_predictor.cls_score.weight[1:], scores[:3])
    boxes = heads.box_predictor.bbox_pred
    assert torch.equal(boxes.weight[4:], given["box_predictor.bbox_pred.weight"])
    assert torch.equal(boxes.bias[4:], given["box_predictor.bbox_pred.bias"])
    assert boxes.weight[:4].abs().max() == 0
    masks = heads.mask_predictor.mask_fcn_logits.weight
    assert torch.equal(masks[1:], given["mask_head.predictor.weight"])
    assert torch.equal(heads.box_head[5].weight, given["box_head.fc1.weight"])
    assert torch.equal(heads.mask_head[2][1].running_var, given["mask_head.mask_fcn3.norm.running_var"])
    assert torch.equal(model.fpn.inner_blocks[3][0].weight, tensors["backbone.fpn_lateral5.weight"])
    assert torch.equal(model.fpn.layer_blocks[0][1].bias, tensors["backbone.fpn_output2.norm.bias"])
    assert torch.equal(model.rpn.head.conv[1][0].bias, tensors["proposal_generator.rpn_head.conv.conv1.bias"])
    stem = tensors["backbone.bottom_up.encoder.patch_embed.proj.3.3.bias"]
    assert torch.equal(model.backbone.encoder.patch_embed.proj[3][3].bias, stem)


def test_a_left_over_mask_token_and_constants_are_no_fault(changed, tmp_path):
    path, options, tensors = small_file(changed, tmp_path)
    tensors["backbone.bottom_up.decoder.mask_token"] = torch.zeros(1, 1, 16)
    tensors["pixel_mean"] = torch.zeros(3, 1, 1)
    tensors["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
        del tensors[name]
    torch.save({"model": tensors}, path)
    model = detector(options)
    load_released(model, path)
    assert torch.equal(
        model.backbone.decoder.decoder_embed.bias, tensors["backbone.bottom_up.decoder.decoder_embed.bias"]
    )


def test_a_file_of_the_other_version(changed, tmp_path):
    path, options, _ = small_file(changed, tmp_path, fill="mask_token")
    load_released(detector(options), path)
    with pytest.raises(DataError, match=r"model.pth: is version 1 of the model; set fill: mask_token"):
        load_released(detector(options.model_copy(update={"fill": "conv"})), path)
    path, options, _ = small_file(changed, tmp_path)
    with pytest.raises(DataError, match=r"model.pth: is version 2 of the model; set fill: conv"):
        load_released(detector(options.model_copy(update={"fill": "mask_token"})), path)


def test_files_that_do_not_fit(changed, tmp_path):
    path, options, _ = small_file(changed, tmp_path)
    with pytest.raises(DataError, match="has position tables of 16 places; set grid: 4"):
        load_released(detector(options.model_copy(update={"grid": 5})), path)
    with pytest.raises(DataError, match=r"has no place in this detector"):
        load_released(detector(options.model_copy(update={"decoder_depth": 0})), path)
    with pytest.raises(DataError, match=r"has no tensor for 'backbone.encoder.blocks.1.norm1.weight'"):
        load_released(detector(options.model_copy(update={"depth": 2})), path)
    with pytest.raises(DataError, match="another number of classes"):
        load_released(detector(options, 4), path)
    torch.save({"model": {"cls_token": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match="is no detector with a MIMDet backbone"):
        load_released(detector(options), path)
