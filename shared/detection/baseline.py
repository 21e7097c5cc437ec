"""Mask R-CNN on a ResNet with a feature pyramid (He et al., arXiv:1703.06870): what others are compared with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from shared.data.checkpoints import checkpoint_file, load_checkpoint
from shared.detection.detector import build_detector
from shared.detection.judge import Detecting
from shared.detection.options import MaskRcnnOptions, MaskRcnnTraining
from shared.detection.resnet import ResNet
from shared.detection.training import train_detector
from shared.segmentation.context import Context
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions


def mask_rcnn(parts: Mapping[str, nn.Module], options: MaskRcnnOptions, context: Context) -> Detecting:
    """The trained detector."""
    return Detecting(parts["model"])


def build(sam: None, options: MaskRcnnTraining, seed: int) -> nn.Module:
    """A fresh detector."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_detector(ResNet(options.resnet), options.detector, options.num_classes)


def train(model: Any, base: None, options: MaskRcnnTraining, context: Context) -> None:
    """Train all weights by AdamW, from published ones of the backbone if the options name them."""
    if options.weights:
        path = checkpoint_file(options.weights)
        model.bare_backbone.load(load_checkpoint(path), path)
    chosen = OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train_detector(model, options, context, make_optimizer(trained, chosen))
