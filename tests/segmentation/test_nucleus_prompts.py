"""Points of nuclei and of their neighbours: who is asked for, and which slots hold no point."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.segmentation.nucleus_prompts import (
    centroids,
    instance_points,
    nearest_others,
    neighbour_prompts,
    nucleus_prompts,
    without_negatives,
)
from shared.segmentation.samples import Instances


def grid(rows=3, columns=4, pitch=10, side=6):
    labels = np.zeros((rows * pitch, columns * pitch), np.int32)
    for number in range(rows * columns):
        y, x = divmod(number, columns)
        labels[y * pitch + 2 : y * pitch + 2 + side, x * pitch + 2 : x * pitch + 2 + side] = number + 1
    return Instances(labels, np.zeros(rows * columns, int))


def at(instances, points):
    points = points.astype(int)
    return instances.labels[points[..., 1], points[..., 0]]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_one_uniform_pixel_of_every_instance():
    instances = grid(1, 2, side=3)
    generator = rng()
    draws = np.array([instance_points(instances, generator) for _ in range(900)])
    assert (at(instances, draws) == [1, 2]).all()
    cells = (draws[:, 0] - 2).astype(int)
    counts = np.bincount(cells[:, 1] * 3 + cells[:, 0], minlength=9)
    assert abs(counts - 100).max() < 40  # sd 9.4
    with pytest.raises(DataError, match="instance 1 has no pixel"):
        instance_points(Instances(np.array([[0, 2]]), np.zeros(2, int)), rng())


def test_targets_are_chosen_without_replacement():
    instances = grid()
    found = nucleus_prompts(instances, rng(), max_targets=5)
    assert len(set(found.ids.tolist())) == 5
    assert found.points.shape == (5, 1, 2)
    np.testing.assert_array_equal(at(instances, found.points[:, 0]), found.ids)
    assert (found.labels == 1).all()
    assert len(nucleus_prompts(instances, rng(), max_targets=50).ids) == 12
    seen = np.bincount(np.concatenate([nucleus_prompts(instances, rng(s), 5).ids for s in range(300)]))[1:]
    assert abs(seen - 125).max() < 45  # sd 8.5


def test_negatives_are_points_of_other_nuclei_chosen_or_not():
    instances = grid()
    unchosen = 0
    for seed in range(20):
        found = nucleus_prompts(instances, rng(seed), max_targets=3, num_negatives=2)
        owners = at(instances, found.points)
        assert (found.labels == [1, 0, 0]).all()
        assert (owners[:, 0] == found.ids).all()
        assert (owners[:, 1:] != found.ids[:, None]).all()
        assert (owners[:, 1] != owners[:, 2]).all()
        unchosen += (~np.isin(owners[:, 1:], found.ids)).sum()
    assert unchosen > 60


def test_the_number_of_negatives_is_bounded_by_the_other_targets():
    instances = grid()
    one = nucleus_prompts(instances, rng(), max_targets=1, num_negatives=2)
    assert one.labels.tolist() == [[1, -1, -1]]
    assert one.points[0, 1:].tolist() == [[0, 0], [0, 0]]
    two = nucleus_prompts(instances, rng(), max_targets=2, num_negatives=3)
    assert two.labels.tolist() == [[1, 0, -1, -1]] * 2
    none = nucleus_prompts(Instances(np.zeros((5, 5), int), np.zeros(0, int)), rng(), 4, 1)
    assert none.points.shape == (0, 2, 2)
    assert none.labels.shape == (0, 2)


@pytest.mark.parametrize("num", [1, 3])
def test_nearest_others_equal_sorted_distances(num):
    points = rng(2).uniform(0, 100, (30, 2)).astype(np.float32)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(nearest_others(points, num), distances.argsort(1)[:, :num])


def test_equal_points_are_never_their_own_neighbour():
    points = np.array([[1.0, 1], [1, 1], [1, 1], [9, 9]])
    near = nearest_others(points, 2)
    assert (near != np.arange(4)[:, None]).all()
    assert {len(set(row)) for row in near.tolist()} == {2}


def test_test_prompts_take_the_nearest_other_prompts():
    points = np.array([[0, 0], [10, 0], [13, 0]], np.float32)
    found, labels = neighbour_prompts(points, 1)
    np.testing.assert_array_equal(found[:, 0], points)
    np.testing.assert_array_equal(found[:, 1], points[[1, 2, 1]])
    assert labels.tolist() == [[1, 0]] * 3
    np.testing.assert_array_equal(without_negatives(labels), [[1, -1]] * 3)
    found, labels = neighbour_prompts(points[:1], 2)
    assert labels.tolist() == [[1, -1, -1]]
    assert neighbour_prompts(points, 0)[0].shape == (3, 1, 2)
    assert neighbour_prompts(np.zeros((0, 2)), 1)[0].shape == (0, 2, 2)


def test_centroid_of_the_largest_piece():
    labels = np.zeros((20, 20), np.int32)
    labels[2:7, 4:9] = 1
    labels[15, 15] = 1  # a crumb
    labels[10:12, 0:4] = 2
    np.testing.assert_array_equal(centroids(Instances(labels, np.zeros(2, int))), [[6, 4], [1, 10]])
    assert centroids(Instances(np.zeros((4, 4), np.int32), np.zeros(0, int))).shape == (0, 2)


def test_negatives_are_nearest_to_the_target_s_own_point_of_the_second_drawing():
    instances = grid(pitch=8, side=7)
    found = nucleus_prompts(instances, rng(7), max_targets=6, num_negatives=2)
    generator = rng(7)
    generator.permutation(12)
    positives, second = instance_points(instances, generator), instance_points(instances, generator)
    np.testing.assert_array_equal(found.points[:, 0], positives[found.ids - 1])
    by_positive = 0
    for target, points in zip(found.ids - 1, found.points, strict=True):
        # Distances, because pixels at equal ones may come in either order.
        distances = np.sort(np.linalg.norm(second - second[target], axis=1))[1:3]
        np.testing.assert_allclose(np.linalg.norm(points[1:] - second[target], axis=1), distances)
        others = np.linalg.norm(np.delete(second, target, 0) - positives[target], axis=1)
        chosen = np.linalg.norm(points[1:] - positives[target], axis=1)
        by_positive += not np.allclose(np.sort(chosen), np.sort(others)[:2])
    assert by_positive  # the rule makes a difference here
