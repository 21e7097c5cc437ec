"""Detectors that detectron2 wrote, on the torchvision engine: names, order of the classes, and what stays different.

| what | detectron2 | torchvision engine | treated by |
|---|---|---|---|
| names | backbone.bottom_up, proposal_generator, ... | backbone, fpn, rpn, ... | `RULES` |
| background | the last class | class 0 | classes of `cls_score` are turned by one |
| boxes, masks of background | none | outputs that nothing reads | zeros before the first class |
| RoIAlign | half a pixel's shift, adaptive points | as the options say | `aligned`, `sampling`: same by default |
| level of a region | floor(4 + log2(side / 224 + 1e-8)) | 1e-6 outside the logarithm | own formula, detectron2's |
| anchors | not rounded, strides fixed | rounded, strides from the maps' sizes | own anchors, detectron2's |
| boxes of proposals | float32 | format of the features | RPN outputs in float32 |
| proposals without area | dropped | below 1e-3 pixels | `min_size`: as detectron2 by default |
| pasting of masks | at pixel centres | box rounded to pixels | own function, detectron2's |
| box loss | L1 | smooth L1, beta 1/9 | `beta`: 0 by default; training only |
| mask targets | polygons drawn | RoIAlign of bitmaps, from 0.5 on | not treated; training only |
| boxes below 0.01 pixels | kept | dropped after the box head | not treated |
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import DataError, nearest

# detectron2's name, the engine's; {0}, {1}: the groups, after `-1` counted from one less
RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.bottom_up\.(.+)", "backbone.{0}"),
    (r"backbone\.fpn_lateral(\d)\.(weight|bias)", "fpn.inner_blocks.{level}.0.{1}"),
    (r"backbone\.fpn_lateral(\d)\.norm\.(\w+)", "fpn.inner_blocks.{level}.1.{1}"),
    (r"backbone\.fpn_output(\d)\.(weight|bias)", "fpn.layer_blocks.{level}.0.{1}"),
    (r"backbone\.fpn_output(\d)\.norm\.(\w+)", "fpn.layer_blocks.{level}.1.{1}"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(weight|bias)", "rpn.head.conv.{0}.0.{1}"),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", "rpn.head.conv.0.0.{0}"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", "rpn.head.cls_logits.{0}"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", "rpn.head.bbox_pred.{0}"),
    (r"roi_heads\.box_head\.conv(\d)\.(weight|bias)", "roi_heads.box_head.{before}.0.{1}"),
    (r"roi_heads\.box_head\.conv(\d)\.norm\.(\w+)", "roi_heads.box_head.{before}.1.{1}"),
    (r"roi_heads\.box_head\.fc(\d)\.(weight|bias)", "roi_heads.box_head.{linear}.{1}"),
    (r"roi_heads\.box_predictor\.(cls_score|bbox_pred)\.(weight|bias)", "roi_heads.box_predictor.{0}.{1}"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", "roi_heads.mask_head.{before}.0.{1}"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.norm\.(\w+)", "roi_heads.mask_head.{before}.1.{1}"),
    (r"roi_heads\.mask_head\.deconv\.(weight|bias)", "roi_heads.mask_predictor.conv5_mask.{0}"),
    (r"roi_heads\.mask_head\.predictor\.(weight|bias)", "roi_heads.mask_predictor.mask_fcn_logits.{0}"),
)
_IGNORED = re.compile(r"(.*\.)?(pixel_mean|pixel_std|cell_anchors\.\d+|relative_position_index)$")


def engine_name(name: str, finest: int, num_convs: int) -> str | None:
    """The engine's name of a tensor of detectron2's, or None if the engine has none.

    finest: level of the finest map of the pyramid (2 for stride 4); num_convs: convolutions of the box head.
    """
    for pattern, form in RULES:
        if match := re.fullmatch(pattern, name):
            groups = match.groups()
            number = int(groups[0]) if groups[0].isdigit() else 0
            linear = num_convs + 2 * number - 1  # after the convolutions and a flattening, every other one is a ReLU
            return form.format(*groups, level=number - finest, before=number - 1, linear=linear)
    return None


def without_constants(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file without those that old versions wrote although nothing learns them."""
    return {name: value for name, value in tensors.items() if not _IGNORED.fullmatch(name)}


def to_engine(tensors: dict[str, Tensor], model: nn.Module, where: str | Path = "checkpoint") -> dict[str, Tensor]:
    """The state dict of a torchvision `Detector` from the tensors of a detectron2 file; every tensor finds its place.

    Works without memory, too (device meta). Raises DataError naming the first tensor of the file that the model has no
    place for, of the model that the file lacks, or of another shape.
    """
    own = model.state_dict()
    finest = _finest(model)
    num_convs = len({name for name in own if re.match(r"roi_heads\.box_head\.\d+\.0\.weight", name)})
    state: dict[str, Tensor] = {}
    for name, value in without_constants(tensors).items():
        target = engine_name(name, finest, num_convs)
        if target is None or target not in own:
            raise DataError(
                f"{where}: tensor '{name}' has no place in this detector{nearest(target or name, set(own))}"
            )
        state[target] = _with_background(target, value)
    for name, value in own.items():
        if name not in state and name.endswith("num_batches_tracked"):
            state[name] = value  # not in every file, and without effect: the momentum is fixed
        if name not in state:
            raise DataError(f"{where}: has no tensor for '{name}': another version or size of the model")
        if state[name].shape != value.shape:
            raise DataError(
                f"{where}: '{name}' is {tuple(state[name].shape)}, the model's is {tuple(value.shape)}: "
                "another size of the model, or another number of classes"
            )
    return state


def _finest(model: nn.Module) -> int:
    strides: list[int] = model.get_submodule("backbone").strides  # type: ignore[assignment]
    return strides[0].bit_length() - 1


def _with_background(name: str, value: Tensor) -> Tensor:
    """Outputs of the classes in the engine's order: background first."""
    if name.startswith("roi_heads.box_predictor.cls_score."):
        return torch.cat([value[-1:], value[:-1]])
    rows = {"roi_heads.box_predictor.bbox_pred.": 4, "roi_heads.mask_predictor.mask_fcn_logits.": 1}
    for prefix, num in rows.items():
        if name.startswith(prefix):
            return torch.cat([value.new_zeros(num, *value.shape[1:]), value])
    return value
