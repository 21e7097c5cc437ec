"""Clip, background removed, filter, suppression: in this order."""

import numpy as np
import pytest
import torch

from papers.promptnucseg.prompter.model import build_prompter
from papers.promptnucseg.prompter.options import PointOptions, PrompterTraining, SmallNet
from papers.promptnucseg.prompter.predict import (
    Points,
    all_candidates,
    candidates,
    on_foreground,
    predict_points,
    select,
    suppress,
)
from shared.errors import ConfigError


@pytest.fixture(scope="module")
def model():
    """An untrained prompter that calls about half of its anchors nuclei, of two classes."""
    options = PrompterTraining(backbone=SmallNet(widths=[6, 8, 10]), width=12, levels=2, num_classes=2)
    prompter = build_prompter(options, seed=0).eval()
    with torch.no_grad():
        prompter.regress[-1].weight.mul_(20)
        prompter.regress[-1].bias.copy_(torch.tensor([-6.0, 6.0]))  # so that some points fall outside
        logits = prompter(torch.from_numpy(picture().transpose(2, 0, 1))[None]).logits[0]
        prompter.classify[-1].bias[2] += (logits[:, :2].max(1).values - logits[:, 2]).median()
    return prompter


def picture(height=40, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def some_points(num=40, seed=0, size=30):
    rng = np.random.default_rng(seed)
    return Points(
        (rng.random((num, 2)) * (size - 1)).astype(np.float32),
        rng.random(num).astype(np.float32),
        rng.integers(0, 2, num),
        rng.standard_normal((size, size)).astype(np.float32),
    )


def rows(points):
    return {tuple(row) for row in np.column_stack([points.xy, points.scores, points.classes])}


def suppressed_by_hand(points, radius):
    left, kept = sorted(range(len(points)), key=lambda i: -points.scores[i]), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if np.hypot(*(points.xy[i] - points.xy[best])) > radius]
    return kept


@pytest.mark.parametrize("radius", [0.0, 1.0, 4.0, 12.0, 100.0])
def test_suppression_against_the_definition(radius):
    points = some_points()
    found = suppress(points, radius)
    assert rows(found) == rows(points.take(np.array(suppressed_by_hand(points, radius))))
    assert (np.diff(found.scores) <= 0).all()


def test_suppression_is_inclusive_over_all_classes_and_keeps_the_first_of_equals():
    xy = np.array([[0, 0], [3, 4], [20, 0], [26, 0]], np.float32)
    points = Points(xy, np.full(4, 0.5, np.float32), np.array([0, 1, 0, 0]))
    assert suppress(points, 5.0).xy.tolist() == [[0, 0], [20, 0], [26, 0]]
    assert len(suppress(points, 4.99)) == 4


def test_a_removed_point_removes_nothing():
    xy = np.array([[0, 0], [4, 0], [8, 0]], np.float32)
    points = Points(xy, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, int))
    assert suppress(points, 5.0).xy[:, 0].tolist() == [0, 8]


def test_the_filter_reads_the_pixel_of_the_truncated_point():
    logits = np.full((4, 6), -1, np.float32)
    logits[2, 5] = 1
    xy = np.array([[5, 2], [5, 2.99], [4.99, 2], [2, 3]], np.float32)
    points = Points(xy, np.ones(4, np.float32), np.zeros(4, int), logits)
    assert on_foreground(points).xy.tolist() == xy[:2].tolist()
    logits[2, 5] = 0  # above 0, not at it
    assert len(on_foreground(points)) == 0


def test_filtered_points_are_a_subset_before_suppression():
    """Claim C2: afterwards a removed point may release another one."""
    for seed in range(10):
        points = some_points(seed=seed)
        assert rows(on_foreground(points)) < rows(points)
    xy = np.array([[0, 0], [3, 0]], np.float32)
    logits = np.array([[-1, 1, 1, 1]], np.float32)
    points = Points(xy, np.array([0.9, 0.8], np.float32), np.zeros(2, int), logits)
    assert select(points, PointOptions(filter=False, radius=5.0)).xy.tolist() == [[0, 0]]
    assert select(points, PointOptions(filter=True, radius=5.0)).xy.tolist() == [[3, 0]]


def test_candidates_are_the_foreground_predictions_clipped_to_the_image(model):
    image = picture()
    found = candidates(model, image)
    with torch.no_grad():
        raw = model(torch.from_numpy(image.transpose(2, 0, 1))[None])
    nucleus = raw.logits[0].argmax(1) < 2
    assert 3 < nucleus.sum() < len(nucleus)
    points = raw.points[0][nucleus]
    assert (points[:, 0] < 0).any()
    assert (points[:, 1] > 39).any()
    expected = torch.stack([points[:, 0].clamp(0, 55), points[:, 1].clamp(0, 39)], 1)
    np.testing.assert_allclose(found.xy, expected, atol=1e-4)
    np.testing.assert_allclose(found.scores, raw.logits[0].softmax(1)[nucleus].max(1).values, atol=1e-5)
    assert found.classes.tolist() == raw.logits[0][nucleus].argmax(1).tolist()
    np.testing.assert_allclose(found.mask_logits, raw.mask[0, 0], atol=1e-4)
    assert (found.xy.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int64)


def test_images_of_any_size_are_padded_black_and_cut_again(model):
    image = picture(37, 50)
    padded = np.zeros((40, 56, 3), np.uint8)
    padded[:37, :50] = image
    small, large = candidates(model, image), candidates(model, padded)
    assert small.mask_logits.shape == (37, 50)
    np.testing.assert_allclose(small.mask_logits, large.mask_logits[:37, :50], atol=1e-5)
    np.testing.assert_allclose(small.xy, np.minimum(large.xy, [49, 36]), atol=1e-4)


def test_images_go_through_together_only_when_of_equal_size(model, monkeypatch):
    images = [picture(seed=0), picture(seed=1), picture(24, 24, 2), picture(seed=3)]
    sizes = []
    handle = model.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape)))
    together = list(all_candidates(model, images))
    assert sizes == [(2, 3, 40, 56), (1, 3, 24, 24), (1, 3, 40, 56)]
    sizes.clear()
    monkeypatch.setattr("papers.promptnucseg.prompter.predict._PIXELS", 40 * 56)
    list(all_candidates(model, images))
    handle.remove()
    assert [size[0] for size in sizes] == [1, 1, 1, 1]
    for image, found in zip(images, together, strict=True):
        alone = candidates(model, image)
        np.testing.assert_allclose(found.xy, alone.xy, atol=1e-3)
        np.testing.assert_allclose(found.mask_logits, alone.mask_logits, atol=1e-3)


def test_predict_points_is_the_composition(model):
    image, options = picture(), PointOptions(filter=True, radius=6.0)
    expected = suppress(on_foreground(candidates(model, image)), 6.0)
    found = predict_points(model, image, options)
    assert rows(found) == rows(expected)
    assert 0 < len(found) < len(candidates(model, image))


def test_prediction_is_without_dropout_and_gradients(model):
    model.train()
    first, second = candidates(model, picture()), candidates(model, picture())
    assert rows(first) == rows(second)
    assert not model.training


def test_no_points_at_all():
    empty = Points(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.ones((4, 4)))
    assert len(select(empty, PointOptions(filter=True, radius=5.0))) == 0


def test_a_prompter_without_foreground_map_cannot_filter():
    points = Points(np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert len(select(points, PointOptions(filter=False))) == 1
    with pytest.raises(ConfigError, match="the point filter needs a foreground map"):
        select(points, PointOptions(filter=True))
