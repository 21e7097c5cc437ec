"""How many weights the detectors have (E1), and what sampling leaves for the encoder to do (E7). No weight is made: the
models lie on torch's meta device."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.options import SIZES, BenchmarkingOptions, mimdet_size
from shared.detection.detector import Detector
from shared.detection.options import DetectorOptions
from shared.options import Count, Options
from shared.results.records import Metric
from shared.study import Findings

_CLASSES = 80


class SizeOptions(Options):
    """size: of MIMDet by name, or the baseline."""

    size: Literal["vit_b", "vit_l", "vit_b_v1", "vit_l_v1", "benchmarking"]


class CostOptions(Options):
    """ratio: share of the tokens that the encoder sees. image: height and width, multiples of a token."""

    size: Literal["vit_b", "vit_l"] = "vit_b"
    ratio: Annotated[float, Field(gt=0, le=1)]
    image: Annotated[tuple[Count, Count], Field(strict=False)] = (800, 1344)


def model_size(options: SizeOptions, seed: int) -> Findings:
    """`#params` in millions as the authors print them: with the frozen position tables and without outputs for
    background; `trainable`: of the torchvision engine, which has such outputs; `trainable_d2`: of detectron2's."""
    with torch.device("meta"):
        if options.size == "benchmarking":
            backbone: nn.Module = Benchmarking(BenchmarkingOptions())
        else:
            backbone = MimDet(mimdet_size(options.size))
        detector = Detector(backbone, DetectorOptions(), _CLASSES)
    trainable = sum(parameter.numel() for parameter in detector.parameters())
    tables = sum(buffer.numel() for name, buffer in backbone.named_buffers() if name.endswith("pos_embed"))
    own = trainable - _background(detector)
    values = {"#params": ((own + tables) / 1e6, "M"), "trainable": (trainable, ""), "trainable_d2": (own, "")}
    return Findings([Metric(name, float(value), unit, "lower") for name, (value, unit) in values.items()])


def _background(detector: Detector) -> int:
    """Weights of the outputs for background: one class score more, four box offsets, and a mask."""
    heads = detector.roi_heads
    score, box = heads.box_predictor.cls_score, heads.box_predictor.bbox_pred
    mask = heads.mask_predictor.mask_fcn_logits
    # the class score of background exists in both engines
    assert score.out_features == _CLASSES + 1
    return 4 * (box.in_features + 1) + (mask.in_channels + 1)


def encoder_cost(options: CostOptions, seed: int) -> Findings:
    """`tokens` that enter the encoder's blocks; `scores`: entries of a head's attention matrix; `TFLOPs`: forward and
    backward pass of the whole backbone on one image."""
    height, width = options.image
    seen: list[int] = []
    with torch.device("meta"):
        changes = {"ratio_train": options.ratio, "drop_path": 0.0}
        backbone = MimDet(SIZES[options.size].model_copy(update=changes)).train()
        images = torch.zeros(1, 3, height, width)
    backbone.to("meta")  # its tables come from numpy
    for block in backbone.encoder.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    with FlopCounterMode(display=False) as counter:
        maps = backbone(images, torch.tensor([[height, width]]))
        torch.stack([value.sum() for value in maps.values()]).sum().backward()
    tokens = seen[0]
    assert set(seen) == {tokens}
    values = {"tokens": (tokens, ""), "scores": (tokens**2, ""), "TFLOPs": (counter.get_total_flops() / 1e12, "T")}
    return Findings([Metric(name, float(value), unit, "lower") for name, (value, unit) in values.items()])
