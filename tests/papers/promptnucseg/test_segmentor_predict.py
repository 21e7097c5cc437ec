"""From points to a label map, with a model that answers exactly: an error is then the windows' or the views' fault."""

import numpy as np
import pytest

from papers.promptnucseg.segmentor.options import InferenceOptions
from papers.promptnucseg.segmentor.predict import find_masks, segment
from shared.errors import ConfigError
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.predictor import Predictor
from shared.segmentation.samples import Instances


def scene(height=70, width=90, pitch=10, side=7):
    """A grid of squares, and the picture that shows their ids."""
    labels = np.zeros((height, width), np.int32)
    number = 0
    for y in range(1, height - side, pitch):
        for x in range(1, width - side, pitch):
            number += 1
            labels[y : y + side, x : x + side] = number
    return Instances(labels, np.arange(number) % 3), np.repeat(labels[..., None], 3, 2).astype(np.uint8)


def options(**changes):
    return InferenceOptions(**{"window": 32, "overlap": 12, "edge_margin": 2, **changes})


def same_instances(found, truth):
    """Whether two label maps divide the pixels alike, whatever their ids."""
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.mark.parametrize("passes", ["one", "six"])
@pytest.mark.parametrize("shape", [(70, 90), (32, 32), (20, 45), (15, 12)])
def test_every_nucleus_is_found_whole(reading, shape, passes):
    truth, image = scene(*shape)
    points = centroids(truth)
    found = segment(reading(), image, points, truth.classes, 3, options(passes=passes))
    assert same_instances(found.labels, truth.labels)
    np.testing.assert_array_equal(np.sort(found.prompt), np.arange(len(truth)))
    owner = truth.labels[points[found.prompt, 1].astype(int), points[found.prompt, 0].astype(int)]
    for number in range(len(found.prompt)):
        assert (truth.labels[found.labels == number + 1] == owner[number]).all()
    for number, plane in enumerate(found.planes):
        assert same_instances(
            plane, np.where(np.isin(truth.labels, np.flatnonzero(truth.classes == number) + 1), truth.labels, 0)
        )


def test_the_released_rotations_miss_by_a_pixel(reading):
    """On pictures of single-pixel nuclei no rotated view finds the nucleus; three views of six do."""
    labels = np.zeros((32, 32), np.int32)
    labels[10, 12] = 1
    image = np.repeat(labels[..., None], 3, 2).astype(np.uint8)
    points = np.array([[12.0, 10.0]])
    assert len(find_masks(reading(), image, points, options(passes="six"))) == 1
    assert len(find_masks(reading(), image, points, options(passes="six_official"))) == 0  # mean logit 0


def test_a_prompt_at_a_window_s_border_is_found_in_the_neighbouring_window(reading):
    labels = np.zeros((32, 52), np.int32)
    labels[10:20, 24:34] = 1  # windows are 0..31 and 20..51: the first one cuts it
    image = np.repeat(labels[..., None], 3, 2).astype(np.uint8)
    point = np.array([[28.0, 15.0]])
    model = reading()
    found = find_masks(model, image, point, options())
    assert len(model.asked) == 2
    assert found.boxes.tolist() == [[24, 10, 33, 19]]
    assert found.crops[0].all()


def test_a_nucleus_that_every_window_cuts_has_no_mask(reading):
    labels = np.zeros((32, 52), np.int32)
    labels[10:20, 15:36] = 1
    image = np.repeat(labels[..., None], 3, 2).astype(np.uint8)
    point = np.array([[25.0, 15.0]])
    assert len(find_masks(reading(), image, point, options())) == 0
    cut = find_masks(reading(), image, point, options(edge_margin=None))
    assert cut.boxes.tolist() == [[15, 10, 31, 19]]  # the larger of the two halves


def test_negatives_are_prompts_of_the_same_window_and_each_prompt_is_asked_twice(reading):
    truth, image = scene(32, 32)  # nine nuclei in one window
    model = reading()
    find_masks(model, image, centroids(truth), options(num_negatives=1))
    assert model.asked == [[1, 0], [1, -1]] * len(truth)
    once = reading()
    find_masks(once, image, centroids(truth), options(num_negatives=2, both=False))
    assert once.asked == [[1, 0, 0]] * len(truth)
    alone = reading()
    find_masks(alone, image, centroids(truth)[:1], options(num_negatives=2, both=False))
    assert alone.asked == [[1, -1, -1]]
    plain = reading()
    find_masks(plain, image, centroids(truth), options())
    assert plain.asked == [[1]] * len(truth)


@pytest.mark.parametrize(("bonus", "extra"), [(0.5, 0.5), (-0.001, 0.0)])
def test_of_both_variants_the_one_of_higher_predicted_iou_counts(reading, bonus, extra):
    truth, image = scene(32, 32)
    found = find_masks(reading(bonus=bonus), image, centroids(truth), options(num_negatives=1))
    np.testing.assert_allclose(found.score, 49 / 32**2 + extra, rtol=1e-5)


def test_an_image_without_points_is_empty_and_asks_nothing(reading):
    _, image = scene()
    model = reading()
    found = segment(model, image, np.zeros((0, 2), np.float32), np.zeros(0, np.int64), 2, options())
    assert model.calls == 0
    assert found.labels.shape == image.shape[:2]
    assert not found.labels.any()
    assert len(found.prompt) == len(found.score) == 0
    assert found.planes.shape == (2, *image.shape[:2])


def test_points_on_background_give_nothing(reading):
    _, image = scene()
    found = segment(reading(), image, np.array([[0.0, 0.0], [89.0, 69.0]]), np.zeros(2, np.int64), 1, options())
    assert not found.labels.any()
    assert found.planes is None


def test_two_prompts_of_one_nucleus_give_it_once(reading):
    truth, image = scene(32, 32)
    points = np.concatenate([centroids(truth)[:1], centroids(truth)[:1] + 1])
    found = segment(reading(), image, points, np.zeros(2, np.int64), 1, options())
    assert found.prompt.tolist() == [0]


def test_a_window_larger_than_the_model_is_refused(reading):
    with pytest.raises(ConfigError, match="window: 64 pixels, but the model's input has 32"):
        find_masks(reading(), scene()[1], np.zeros((1, 2)), options(window=64))


def test_one_window_is_what_sam_s_own_inference_gives():
    model = build_sam(SIZES["small_patch8"], seed=0).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 64, 3), dtype=np.uint8)
    points = rng.uniform(5, 45, (6, 2)).astype(np.float32)
    predictor = Predictor(model)
    expected = predictor.predict(predictor.embed(image), points=points[:, None], labels=np.ones((6, 1)))
    found = find_masks(model, image, points, InferenceOptions(window=64, overlap=8))
    whole = [index for index in range(6) if expected.masks[index, 0].any()]
    assert found.prompt.tolist() == whole
    np.testing.assert_allclose(found.score, expected.iou[whole, 0], atol=1e-5)
    for index, (x0, y0, x1, y1), crop in zip(whole, found.boxes, found.crops, strict=True):
        mask = np.zeros((50, 64), bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = crop
        assert (mask != expected.masks[index, 0]).mean() < 1e-3
