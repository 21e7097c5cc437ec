"""Otsu's threshold and the watershed on drawn discs: polarity, touching objects, nothing to find."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage.filters import threshold_otsu

from shared.errors import ConfigError
from shared.metrics.segmentation.instances import aji, overlaps
from shared.options import options_class, parse_options
from shared.segmentation.classical import (
    BoxOptions,
    WatershedOptions,
    foreground,
    otsu,
    otsu_in_box,
    otsu_watershed,
    smooth_grey,
)
from shared.segmentation.context import Context
from shared.segmentation.evaluate.instances import evaluate_instances
from shared.segmentation.evaluate.prompted import evaluate_prompted
from shared.segmentation.evaluate.spec import InstancesSpec, PromptedSpec
from shared.segmentation.prompts import Prompt
from shared.segmentation.samples import Instances, Sample

DATA = {"kind": "generated", "manifest": "touching_nuclei", "part": "test"}
CONTEXT = Context(torch.device("cpu"), 1)


class Listed:
    def __init__(self, samples):
        self.samples = samples
        self.names = [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def discs(*places, size=(80, 100)):
    """Label map of discs (row, column, radius)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.int32)
    for number, (y, x, r) in enumerate(places, 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = number
    return labels


def picture(labels, is_dark=False, noise=8, seed=0):
    grey = np.where(labels > 0, 170.0, 60.0) + np.random.default_rng(seed).normal(0, noise, labels.shape)
    grey = np.clip(255 - grey if is_dark else grey, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def segment(image, **options):
    return otsu_watershed({}, WatershedOptions(**options), CONTEXT).segment(image)


PLACES = ((20, 20, 9), (20, 36, 9), (55, 30, 11), (50, 75, 8))  # the first two touch


@pytest.mark.parametrize("is_dark", [False, True])
def test_bright_and_dark_discs_are_found_and_touching_ones_parted(is_dark):
    truth = discs(*PLACES)
    found = segment(picture(truth, is_dark))
    assert found.labels.max() == 4
    assert aji(overlaps(truth, found.labels)) > 0.85
    expected = [(x, y) for y, x, _ in PLACES]
    np.testing.assert_allclose(sorted(map(tuple, found.points)), sorted(expected), atol=2.5)
    assert found.classes.tolist() == found.point_classes.tolist() == [0] * 4
    assert ((found.scores > 0.1) & (found.scores < 0.5)).all()  # 110 of 255 apart, the threshold between
    np.testing.assert_array_equal(found.scores, found.point_scores)


def test_every_piece_of_the_foreground_gets_an_instance():
    truth = discs((10, 10, 3), (10, 30, 5), (40, 50, 15))
    found = segment(picture(truth, noise=0), sigma=0.0, min_area=0)
    np.testing.assert_array_equal(found.labels > 0, truth > 0)
    assert all(found.labels[truth == number].min() > 0 for number in (1, 2, 3))


def test_centres_keep_their_distance_and_small_pieces_are_dropped():
    truth = discs((20, 20, 9), (20, 35, 8), (60, 60, 2))
    image = picture(truth, noise=0)
    assert segment(image, sigma=0.0, min_area=5).labels.max() == 3
    assert segment(image, sigma=0.0, min_area=30).labels.max() == 2
    assert segment(image, sigma=0.0, min_area=30, min_distance=20).labels.max() == 1
    assert segment(image, sigma=0.0, min_area=30, footprint=41).labels.max() == 1


def test_holes_are_filled():
    truth = discs((40, 50, 20))
    ring = np.where(discs((40, 50, 5)) > 0, 0, truth)
    found = segment(picture(ring, noise=0), sigma=0.0, min_distance=30)
    np.testing.assert_array_equal(found.labels > 0, truth > 0)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_colour_has_no_instances(value):
    found = segment(np.full((30, 40, 3), value, np.uint8))
    assert found.labels.shape == (30, 40)
    assert not found.labels.any()
    assert found.points.shape == (0, 2)
    assert len(found.scores) == len(found.classes) == 0


def test_the_side_of_the_background_is_never_the_object():
    rng = np.random.default_rng(0)
    grey = rng.random((20, 30))
    bright = foreground(grey, 0.5)
    border = np.ones(grey.shape, bool)
    border[1:-1, 1:-1] = False
    assert bright[border].mean() <= 0.5
    np.testing.assert_array_equal(foreground(1 - grey, 0.5), bright)
    expected = ~(grey > 0.5) if (grey > 0.5)[:5].mean() > 0.5 else grey > 0.5
    np.testing.assert_array_equal(foreground(grey, 0.5, np.arange(20)[:, None].repeat(30, 1) < 5), expected)


def test_the_threshold_is_of_the_smoothed_luminance():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    grey = smooth_grey(image, 0.0)
    np.testing.assert_allclose(grey, image @ [0.2125, 0.7154, 0.0721] / 255, atol=1e-6)
    assert otsu(grey) == pytest.approx(threshold_otsu(grey))
    assert smooth_grey(image, 2.0).std() < grey.std()


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_box_holds_its_own_disc(is_dark):
    truth = discs(*PLACES)
    prompts = [Prompt(box=np.array([x - r, y - r, x + r, y + r], np.float32)) for y, x, r in PLACES]
    masks = otsu_in_box({}, BoxOptions(), CONTEXT).masks(picture(truth, is_dark), prompts)
    assert masks.shape == (4, *truth.shape)
    assert masks.dtype == bool
    for number, mask in enumerate(masks, 1):
        common, either = (mask & (truth == number)).sum(), (mask | (truth == number)).sum()
        assert common / either > 0.8


def test_a_box_at_the_edge_and_one_over_everything():
    truth = discs((0, 0, 12), (40, 50, 10))
    image = picture(truth, noise=0)
    prompts = [Prompt(box=np.array(box, np.float32)) for box in ([-3, 0, 11, 11], [0, 0, 99, 79], [70, 60, 70, 60])]
    corner, everything, pixel = otsu_in_box({}, BoxOptions(sigma=0.0), CONTEXT).masks(image, prompts)
    np.testing.assert_array_equal(corner, truth == 1)
    np.testing.assert_array_equal(everything, truth == 2)  # the largest piece
    assert not pixel.any()  # one colour around it


def test_points_are_no_boxes():
    prompt = Prompt(points=np.zeros((1, 2), np.float32), point_labels=np.ones(1, np.float32))
    with pytest.raises(ConfigError, match=r"otsu_in_box: needs boxes; set evaluate\.prompt\.kind to 'box'"):
        otsu_in_box({}, BoxOptions(), CONTEXT).masks(np.zeros((8, 8, 3), np.uint8), [prompt])


def test_both_go_through_their_evaluations():
    truths = [discs(*PLACES), discs((30, 30, 12))]
    samples = [Sample(str(i), picture(t, seed=i), Instances(t, np.zeros(t.max(), int))) for i, t in enumerate(truths)]
    source = Listed(samples)
    found = evaluate_instances(
        otsu_watershed({}, WatershedOptions(), CONTEXT), source, InstancesSpec(data=DATA, radius=5.0), CONTEXT
    )
    assert found.metrics["AJI"] > 0.85
    assert found.metrics["F1"] == found.metrics["precision"] == 100
    prompted = evaluate_prompted(otsu_in_box({}, BoxOptions(), CONTEXT), source, PromptedSpec(data=DATA), CONTEXT)
    assert prompted.metrics["mIoU"] > 85
    assert prompted.metrics["AJI"] > 0.8


def test_options_are_read_without_importing_the_methods():
    path = "shared.segmentation.classical:otsu_watershed"
    assert set(options_class(path).model_fields) == {"sigma", "min_distance", "footprint", "min_area"}
    assert parse_options(path, {"sigma": 2.0, "min_area": 0}).sigma == 2
    assert parse_options("shared.segmentation.classical:otsu_in_box", {"margin": 0.5}).margin == 0.5
    with pytest.raises(ConfigError, match="min_distanse: unknown key"):
        parse_options(path, {"min_distanse": 3})
    with pytest.raises(ValidationError):
        WatershedOptions(min_distance=0)
