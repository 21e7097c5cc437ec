"""Proposition 2: second order in the learning rate, a bound that shrinks with sparsity, and the loop written out."""

import itertools

import numpy as np
import pytest

from papers.unlearn_sparse.bound import (
    BoundOptions,
    bound,
    magnitude_mask,
    make_regression,
    norm_times_curvature,
    trained,
    unlearning_errors,
)

SPARSITIES = [0.0, 0.5, 0.8, 0.9, 0.95]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lr", [1e-3, 1e-4])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_error_is_of_second_order(sparsity, lr, seed):
    found = {metric.name: metric.value for metric in bound(BoundOptions(sparsity=sparsity, lr=lr), seed).metrics}
    assert 3.5 <= found["error_ratio"] <= 4.5
    assert found["error"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_bound_falls_along_nested_masks(seed):
    problem = make_regression(BoundOptions(sparsity=0.0), seed)
    dense = trained(problem, 1e-3, np.ones(20))[-1]
    masks = [magnitude_mask(dense, sparsity) for sparsity in SPARSITIES]
    for wide, narrow in itertools.pairwise(masks):
        assert (narrow <= wide).all()
        assert norm_times_curvature(problem, dense, narrow) <= norm_times_curvature(problem, dense, wide)
    assert [int(mask.sum()) for mask in masks] == [20, 10, 4, 2, 1]


def test_errors_equal_the_loop_written_out():
    options = BoundOptions(sparsity=0.5, dimension=4, steps=6)
    problem, mask, lr = make_regression(options, 3), np.array([1.0, 0, 1, 1]), 0.05

    def sgd(order):
        theta = problem.start.copy()
        for j in order:
            theta -= lr * mask * (problem.inputs[j] @ theta - problem.targets[j]) * problem.inputs[j]
        return theta

    expected = []
    for k in range(6):
        gradient = (problem.inputs[k] @ problem.start - problem.targets[k]) * problem.inputs[k]
        unlearned = sgd(range(6)) + lr * mask * gradient
        expected.append(np.linalg.norm(unlearned - sgd([j for j in range(6) if j != k])))
    np.testing.assert_allclose(unlearning_errors(problem, lr, mask), expected, rtol=1e-12)


def test_pruned_weights_stay_where_they_started():
    problem = make_regression(BoundOptions(sparsity=0.0), 1)
    mask = np.array([1.0, 0] * 10)
    assert (trained(problem, 1e-2, mask)[:, 1::2] == problem.start[1::2]).all()


def test_a_single_step_is_unlearned_exactly():
    """t = 1: the start gradient is the step itself."""
    problem = make_regression(BoundOptions(sparsity=0.0, steps=1), 0)
    assert unlearning_errors(problem, 0.1, np.ones(20)).item() == pytest.approx(0, abs=1e-15)
