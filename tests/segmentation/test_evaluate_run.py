"""Which evaluation a task gets, and a method that does not fit it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import ConfigError
from shared.segmentation.classical import BoxOptions, OtsuInBox, OtsuWatershed, WatershedOptions
from shared.segmentation.context import Context
from shared.segmentation.evaluate.run import evaluate
from shared.segmentation.evaluate.spec import DetectionsSpec, InstancesSpec, PromptedSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.samples import Instances, Sample

DATA = {"kind": "generated", "manifest": "touching_nuclei", "part": "test"}
SPECS = {
    "prompted": PromptedSpec(data=DATA),
    "instances": InstancesSpec(data=DATA, radius=5.0),
    "detections": DetectionsSpec(data=DATA, detector={"manifest": "boxes", "file": "boxes.json"}),
}


class One:
    names = ("a",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        labels = np.zeros((40, 40), np.int32)
        labels[10:25, 8:30] = 1
        image = np.repeat(np.where(labels > 0, 200, 20).astype(np.uint8)[..., None], 3, 2)
        return Sample("a", image, Instances(labels, np.zeros(1, int)))


@dataclass(frozen=True)
class Opened(Context):
    """Opens the same source whatever is asked for."""

    def open(self, spec: Any) -> Any:
        return One()


CONTEXT = Opened(torch.device("cpu"), 1)


def test_the_kind_chooses():
    boxes, watershed = OtsuInBox(BoxOptions(sigma=0.0)), OtsuWatershed(WatershedOptions(sigma=0.0, min_distance=9))
    assert evaluate(boxes, SPECS["prompted"], CONTEXT).metrics["mIoU"] == 100
    found = evaluate(watershed, SPECS["instances"], CONTEXT)
    assert (found.metrics["AJI"], found.metrics["F1"]) == (1, 100)
    model = Prompted(build_sam(SIZES["small_patch8"], seed=0))
    assert "mBIoU" in evaluate(model, SPECS["prompted"], CONTEXT).metrics


@pytest.mark.parametrize(
    ("kind", "predictor", "message"),
    [
        ("prompted", OtsuWatershed(WatershedOptions()), "'prompted' needs a method that answers prompts"),
        ("instances", OtsuInBox(BoxOptions()), "'instances' needs a method that finds instances by itself"),
        ("detections", OtsuInBox(BoxOptions()), "'detections' needs a method that is a promptable model"),
    ],
)
def test_a_method_that_does_not_fit_is_one_line(kind, predictor, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(predictor, SPECS[kind], CONTEXT)
