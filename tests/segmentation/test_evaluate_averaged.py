"""Sets count alike, whatever their size."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from shared.segmentation.context import Context
from shared.segmentation.evaluate.averaged import averaged
from shared.segmentation.evaluate.evaluated import Evaluated
from shared.segmentation.evaluate.prompted import evaluate_prompted
from shared.segmentation.evaluate.run import evaluate
from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.samples import Sample

PARTS = [{"kind": "generated", "manifest": "single_shapes", "part": "train", "limit": limit} for limit in (1, 3)]


@dataclass(frozen=True)
class Squares:
    """Squares of a side, `number` of them."""

    number: int

    @property
    def names(self):
        return [f"{index}" for index in range(self.number)]

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        mask = np.zeros((32, 32), np.uint8)
        mask[8 : 8 + 4 * self.number, 8:24] = 255
        return Sample(self.names[index], np.zeros((32, 32, 3), np.uint8), mask)


@dataclass(frozen=True)
class Opened(Context):
    def open(self, spec: Any) -> Any:
        return Squares(spec.limit)


class UpperRows:
    """Always rows 8 to 16 of the box."""

    def masks(self, image, prompts):
        found = np.zeros((len(prompts), 32, 32), bool)
        found[:, 8:16, 8:24] = True
        return found


CONTEXT = Opened(torch.device("cpu"), 1)


def test_the_mean_of_the_sets_is_not_that_of_the_objects():
    spec = PromptedSpec(data={"kind": "concat", "of": PARTS}, average="sets")
    found = evaluate(UpperRows(), spec, CONTEXT)
    assert found.metrics["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)  # of objects: 62.5
    one, three = (evaluate_prompted(UpperRows(), Squares(n), spec, CONTEXT) for n in (1, 3))
    assert found.metrics["mBIoU"] == pytest.approx((one.metrics["mBIoU"] + three.metrics["mBIoU"]) / 2)
    assert found.per_image["IoU"] == pytest.approx([1 / 2, 2 / 3, 2 / 3, 2 / 3])
    shares = [e.curves["boundary_recall"]["share"] for e in (one, three, found)]
    assert np.allclose((np.array(shares[0]) + shares[1]) / 2, shares[2], atol=1e-4)
    assert [case.name for case in found.cases] == ["0/0", "1/0", "1/1", "1/2"]


def test_one_set_is_itself_and_a_metric_that_a_set_lacks_is_left_out():
    one = Evaluated({"mIoU": 50.0, "AJI": 0.5}, {"IoU": [0.5]})
    assert averaged([one]) == one
    assert averaged([one, Evaluated({"mIoU": 70.0}, {"IoU": [0.7]})]).metrics == {"mIoU": 60.0}


def test_only_several_sets_are_averaged():
    with pytest.raises(ValidationError, match="kind 'concat'"):
        PromptedSpec(data=PARTS[0], average="sets")
    with pytest.raises(ValidationError, match="kind 'concat'"):
        PromptedSpec(data={"kind": "concat", "of": PARTS, "limit": 2}, average="sets")
