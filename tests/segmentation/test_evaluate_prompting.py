"""Prompts of an evaluation: from the label as the model sees it, whatever is left of the object."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared.segmentation.evaluate.prompting import drawn_prompts, seen, soft_objects
from shared.segmentation.evaluate.spec import PromptSpec
from shared.segmentation.samples import Instances, Objects, Sample


def rng(seed=0):
    return np.random.default_rng(seed)


def sample(truth):
    return Sample("a", np.zeros((*truth.shape, 3), np.uint8) if isinstance(truth, np.ndarray) else None, truth)


@pytest.fixture
def masks():
    """A rectangle and a cross in 20x30."""
    found = np.zeros((2, 20, 30), bool)
    found[0, 4:10, 6:19] = True
    found[1, 3:17, 14:16] = found[1, 9:11, 8:22] = True
    return list(found)


def test_objects_of_each_kind_of_truth():
    soft = np.zeros((6, 8), np.uint8)
    assert soft_objects(sample(soft + np.uint8(128))) == []  # the rule is > 128
    soft[2:4, 2:4] = 200
    assert soft_objects(sample(soft))[0] is soft
    labels = np.zeros((6, 8), np.int32)
    labels[0, 0], labels[3:5, 3:5] = 1, 2
    found = soft_objects(sample(Instances(labels, np.zeros(2, int))))
    np.testing.assert_array_equal(np.stack(found), np.stack([labels == 1, labels == 2]) * np.uint8(255))
    stacked = np.stack([labels == 1, labels == 2, labels < 0])
    objects = Objects(stacked, np.zeros(3, int), np.array([True, False, False]), np.arange(3))
    found = soft_objects(sample(objects))  # a crowd is no object, nor is nothing
    np.testing.assert_array_equal(np.stack(found) > 0, stacked[1:2])


def test_a_label_is_resized_as_torch_does_and_cut_above_128():
    soft = rng().integers(0, 256, (17, 23)).astype(np.uint8)
    for size in [(64, 64), (8, 8), (17, 23)]:
        resized = F.interpolate(torch.from_numpy(soft)[None, None].float(), size, mode="bilinear", align_corners=False)
        expected = (resized > 128)[0, 0].numpy()
        assert (seen(soft, size) != expected).mean() < 0.01  # rounding at 128
    np.testing.assert_array_equal(seen(soft, (17, 23)), soft > 128)


def test_an_object_that_resizing_loses_keeps_its_place():
    soft = np.zeros((64, 64), np.uint8)
    soft[40, 21] = 255
    found = seen(soft, (8, 8))
    assert np.argwhere(found).tolist() == [[5, 2]]


def test_boxes_are_tight_and_noise_moves_them_inside_the_picture(masks):
    boxes = [prompt.box for prompt in drawn_prompts(masks, PromptSpec(), rng())]
    np.testing.assert_array_equal(boxes, [[6, 4, 18, 9], [8, 3, 21, 16]])
    noisy = np.stack([p.box for p in drawn_prompts(masks * 50, PromptSpec(noise=0.4), rng())])
    exact = np.tile(boxes, (50, 1))
    assert (noisy >= 0).all()
    assert (noisy[:, 2] <= 30).all()
    assert (noisy[:, 3] <= 20).all()
    centres = (noisy[:, :2] + noisy[:, 2:] - exact[:, :2] - exact[:, 2:]) / 2
    sides = exact[:, 2:] - exact[:, :2]
    assert np.abs(centres / sides).max() <= 0.2 + 1e-6  # U(-1, 1) * side / 2 * noise
    assert np.abs(centres / sides).max() > 0.15


def test_points_lie_on_the_object_and_negatives_beside_it(masks):
    for mask, prompt in zip(masks, drawn_prompts(masks, PromptSpec(kind="points", num=10), rng()), strict=True):
        columns, rows = prompt.points.astype(int).T
        assert mask[rows, columns].all()
        assert len({tuple(point) for point in prompt.points}) == 10
        np.testing.assert_array_equal(prompt.point_labels, np.ones(10))
    spec = PromptSpec(kind="points_and_background", num=10, negatives=5)
    for mask, prompt in zip(masks, drawn_prompts(masks, spec, rng()), strict=True):
        columns, rows = prompt.points.astype(int).T
        np.testing.assert_array_equal(mask[rows, columns], prompt.point_labels == 1)
        np.testing.assert_array_equal(prompt.point_labels, [1] * 10 + [0] * 5)


def test_the_interior_point_needs_no_chance(masks):
    prompts = drawn_prompts(masks, PromptSpec(kind="interior_point"), None)
    np.testing.assert_array_equal(prompts[1].points, [[14, 9]])  # the first of the four pixels of the crossing
    assert masks[0][tuple(prompts[0].points[0].astype(int)[::-1])]


def test_a_tiny_object_repeats_its_pixels_and_a_whole_picture_has_no_background():
    tiny, whole = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    tiny[2, 1:3] = True
    spec = PromptSpec(kind="points_and_background", num=3, negatives=2)
    first, second = drawn_prompts([tiny, whole], spec, rng())
    assert {tuple(point) for point in first.points[:3]} == {(1, 2), (2, 2)}
    np.testing.assert_array_equal(first.point_labels, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(second.point_labels, [1, 1, 1, -1, -1])


def test_no_objects_no_prompts():
    assert drawn_prompts([], PromptSpec(noise=0.2), rng()) == []
    assert drawn_prompts([], PromptSpec(kind="points", num=3), rng()) == []
