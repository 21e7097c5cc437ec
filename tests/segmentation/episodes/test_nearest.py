"""The baseline that learns nothing."""

import json

import numpy as np
import pytest

from shared.segmentation.episodes.nearest import NearestFeatures, NearestOptions, colour_features, nearest_features
from shared.segmentation.episodes.predictor import Example
from shared.segmentation.protocol import METHODS
from shared.segmentation.run import run_row


def scene(colour, place, size=(32, 32), seed=0):
    """A coloured square of 12x12 on dark grey: image and mask."""
    image = np.random.default_rng(seed).integers(20, 50, (*size, 3)).astype(np.uint8)
    mask = np.zeros(size, bool)
    mask[place[0] : place[0] + 12, place[1] : place[1] + 12] = True
    image[mask] = colour
    return image, mask


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_object_of_the_examples_colour_is_found_in_images_of_other_sizes(distance):
    predictor = nearest_features({}, NearestOptions(distance=distance, sigma=1.0), None)
    memory = predictor.remember([Example(*scene((220, 30, 30), (4, 4)))], "red thing")
    sizes = [(32, 32), (40, 64)]
    pairs = [scene((220, 30, 30), (15, 12), size, seed=5) for size in sizes]
    found = predictor.masks(memory, [image for image, _ in pairs])
    for mask, (_, truth), size in zip(found, pairs, sizes, strict=True):
        assert mask.shape == size
        assert mask.dtype == bool
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7


def test_scores_are_positive_inside_the_mask_alone():
    predictor = nearest_features({}, NearestOptions(), None)
    memory = predictor.remember([Example(*scene((220, 30, 30), (4, 4)))])
    image, _ = scene((220, 30, 30), (15, 12), seed=5)
    (score,), (mask,) = predictor.scores(memory, [image]), predictor.masks(memory, [image])
    np.testing.assert_array_equal(score > 0, mask)
    assert 0 <= score.min() <= score.max() <= 1


def test_examples_in_another_order_give_the_same_and_one_twice_changes_nothing():
    predictor = NearestFeatures(lambda image: colour_features(image, 2.0))
    one, two = (Example(*scene((200, 60, 60), (4, 4), seed=seed)) for seed in (0, 1))
    first, second = predictor.remember([one, two]), predictor.remember([two, one])
    np.testing.assert_allclose(first.inside, second.inside)
    np.testing.assert_allclose(predictor.remember([one, one]).outside, predictor.remember([one]).outside)


def test_means_on_a_grid_of_pixels_are_the_means_of_the_pixels():
    image, mask = scene((200, 60, 60), (4, 4))
    memory = NearestFeatures(lambda image: image.transpose(2, 0, 1).astype(np.float32)).remember([Example(image, mask)])
    np.testing.assert_allclose(memory.inside, image[mask].mean(0))
    np.testing.assert_allclose(memory.outside, image[~mask].mean(0), rtol=1e-6)


def test_an_object_smaller_than_a_cell_and_one_that_fills_the_image():
    coarse = NearestFeatures(lambda image: image[::16, ::16].transpose(2, 0, 1).astype(np.float32))
    image, _ = scene((200, 60, 60), (4, 4))
    tiny = np.zeros((32, 32), bool)
    tiny[1, 30] = True
    memory = coarse.remember([Example(image, tiny)])
    np.testing.assert_allclose(memory.inside, image[0, 16].astype(float))
    whole = coarse.remember([Example(image, np.ones((32, 32), bool))])
    np.testing.assert_allclose(whole.inside, whole.outside)
    assert not coarse.masks(whole, [image])[0].any()


def test_as_a_row_of_a_task(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    data = {"kind": "generated", "manifest": "hue_triples", "part": "validation"}
    task = {"evaluate": {"kind": "episodes", "data": data, "draw": {"number": 30}, "side": 32}}
    job = {"task": task, "method": METHODS["nearest_features"], "options": {"sigma": 1.0}, "stages": {"1": {}}}
    metrics, cost, extras = run_row(job, 1, {}, tmp_path)
    values = {metric.name: metric.value for metric in metrics}
    assert values["mIoU"] > 30
    assert values["FB_IoU"] > values["mIoU"]
    assert {metric.unit for metric in metrics if metric.name.endswith("IoU")} == {"%"}
    assert len(extras["cases"]) == 9
    assert len(json.dumps(extras)) < 80_000
    assert cost.seconds > 0
