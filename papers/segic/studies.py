"""How many weights learn, for each size of DINOv2."""

from typing import Literal

import torch

from papers.segic.model import SegicModel
from papers.segic.options import Assembly, Backbone
from papers.segic.released import num_trainable
from shared.options import Options
from shared.results.records import Metric
from shared.study import Findings


class SizeOptions(Options):
    """backbone: a DINOv2 by name."""

    backbone: Literal["dinov2_vitb14", "dinov2_vitl14", "dinov2_vitg14"]


def model_size(options: SizeOptions, seed: int) -> Findings:
    """`trainable parameters`. No weight is made: the model lies on torch's meta device."""
    with torch.device("meta"):
        model = SegicModel(Assembly(backbone=Backbone(name=options.backbone)))
    return Findings([Metric("trainable parameters", float(num_trainable(model)), "", "lower")])
