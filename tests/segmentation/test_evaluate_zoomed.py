"""Zoomed evaluation: equal to the plain one where a window is the whole picture, and blind to what lies outside."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from shared.segmentation.context import Context
from shared.segmentation.evaluate.prompted import evaluate_prompted
from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.samples import Sample, instances_of

DATA = {"kind": "generated", "manifest": "thin_shapes", "part": "in_family", "labels": "fine"}
CONTEXT = Context(torch.device("cpu"), 1)


class Listed:
    """A source of given samples."""

    def __init__(self, samples):
        self.samples = samples
        self.names = [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def found(predictor, samples, **values):
    return evaluate_prompted(predictor, Listed(samples), PromptedSpec(data=DATA, **values), CONTEXT)


@pytest.fixture(scope="module")
def model():
    """A small SAM for 64 pixels whose masks are neither empty nor full."""
    sam = build_sam(SIZES["small_patch8"], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return Prompted(sam.eval())


def scene(number, side=64):
    """A picture with two squares."""
    rng = np.random.default_rng(number)
    labels = np.zeros((side, side), np.int32)
    labels[5:17, 6:20], labels[40:60, 30:58] = 1, 2
    image = (rng.integers(0, 60, (side, side, 3)) + 120 * (labels > 0)[..., None]).astype(np.uint8)
    return Sample(f"s{number}", image, instances_of(labels))


def test_windows_as_large_as_the_picture_are_the_plain_evaluation(model):
    samples = [scene(number) for number in range(3)]
    plain, zoomed = found(model, samples, batch=2), found(model, samples, batch=2, zoom={"factor": 9, "least": 64})
    assert 0 < plain.metrics["mIoU"] < 100
    assert zoomed.metrics == pytest.approx(plain.metrics)
    for name, values in plain.per_image.items():
        np.testing.assert_allclose(zoomed.per_image[name], values, rtol=1e-6)


def test_batches_and_the_order_of_images_do_not_matter(model):
    samples, zoom = [scene(number) for number in range(3)], {"factor": 2, "least": 16}
    one, all_at_once = found(model, samples, batch=1, zoom=zoom), found(model, samples[::-1], batch=8, zoom=zoom)
    assert one.per_image["IoU"] == pytest.approx(all_at_once.per_image["IoU"][::-1])
    assert one.metrics["mBIoU"] == pytest.approx(all_at_once.metrics["mBIoU"])


def test_nothing_outside_a_window_is_seen(model):
    sample, zoom = scene(0), {"factor": 1.2, "least": 1}
    noisy = sample.image.copy()
    noisy[20:28] = 255
    masked = found(model, [Sample("s0", noisy, sample.truth)], zoom=zoom)
    assert masked.metrics == found(model, [sample], zoom=zoom).metrics
    assert masked.metrics["mIoU"] > 0


def test_brightness_does_not_matter_where_windows_are_stretched(model):
    sample, zoom = scene(0), {"factor": 2, "least": 16, "stretch": True}
    image = (sample.image // 2).astype(np.uint8)
    dim, bright = Sample("s0", image, sample.truth), Sample("s0", image * 2 + 9, sample.truth)
    assert found(model, [dim], zoom=zoom).metrics == found(model, [bright], zoom=zoom).metrics
    plain = {**zoom, "stretch": False}
    assert found(model, [dim], zoom=plain).metrics != found(model, [bright], zoom=plain).metrics


def test_an_image_without_objects_asks_nothing(model):
    empty = Sample("e", np.zeros((64, 64, 3), np.uint8), instances_of(np.zeros((64, 64), np.int32)))
    zoom = {"factor": 2, "least": 16}
    assert (
        found(model, [scene(0), empty], zoom=zoom).metrics["mIoU"]
        == found(model, [scene(0)], zoom=zoom).metrics["mIoU"]
    )


@pytest.mark.parametrize(
    "values", [{"prompt": {"kind": "interior_point"}}, {"keep_aspect": True}, {"resolution": "input"}]
)
def test_what_zooming_does_not_go_with(values):
    with pytest.raises(ValidationError, match="zoom: takes prompts of kind 'box'"):
        PromptedSpec(data=DATA, zoom={}, **values)
