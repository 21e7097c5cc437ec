"""Proposition 2 (Jia et al., arXiv:2304.04934) on linear regression: the error of gradient-ascent unlearning.

t plain SGD steps (one sample each, fixed order) from theta_0 with gradients multiplied by a mask m. A sample is
unlearned by adding back its gradient at the start point. Its weight distance e to a model trained without that sample
is of second order in the learning rate: e = O(lr^2 t |m * (theta_t - theta_0)| sigma(m)), sigma(m) the largest singular
value of the Hessian among kept weights. Sparser masks have a smaller bound.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.options import Count, NonNegative, Options, Positive
from shared.results.records import Metric
from shared.study import Findings

Array = NDArray[np.float64]


class BoundOptions(Options):
    """sparsity: share of pruned weights, the smallest after dense training; lr: eta; dimension: of theta; steps: t, as
    many as samples; noise: standard deviation of the labels."""

    sparsity: Annotated[float, Field(ge=0, lt=1)]
    lr: Positive = 1e-3
    dimension: Count = 20
    steps: Count = 30
    noise: NonNegative = 0.1


@dataclass(frozen=True)
class Regression:
    """inputs (t, d), targets (t,), start theta_0 (d,): loss of sample j is (x_j' theta - y_j)^2 / 2."""

    inputs: Array
    targets: Array
    start: Array

    @property
    def hessian(self) -> Array:
        """Of the mean loss (d, d)."""
        return self.inputs.T @ self.inputs / len(self.inputs)


def bound(options: BoundOptions, seed: int) -> Findings:
    """Measures `error` (e, mean over the samples), `error_ratio` (e at lr over e at lr / 2; second order: 4) and
    `bound` (lr^2 t |m * (theta_t - theta_0)| sigma(m) on the dense trajectory, without its constant)."""
    problem = make_regression(options, seed)
    dense = trained(problem, options.lr, np.ones(options.dimension))[-1]
    mask = magnitude_mask(dense, options.sparsity)
    error, half = (unlearning_errors(problem, lr, mask).mean() for lr in (options.lr, options.lr / 2))
    size = norm_times_curvature(problem, dense, mask)
    return Findings(
        [
            Metric("error", float(error), "", "lower"),
            Metric("error_ratio", float(error / half), "", ""),
            Metric("bound", float(options.lr**2 * options.steps * size), "", "lower"),
        ]
    )


def make_regression(options: BoundOptions, seed: int) -> Regression:
    """Gaussian inputs, true weights and start; float64."""
    random = np.random.RandomState(seed)
    inputs = random.standard_normal((options.steps, options.dimension))
    targets = inputs @ random.standard_normal(options.dimension)
    targets += options.noise * random.standard_normal(options.steps)
    return Regression(inputs, targets, random.standard_normal(options.dimension))


def trained(problem: Regression, lr: float, mask: Array) -> Array:
    """Weights after one pass (t + 1, d): row k without the step of sample k, the last row with all."""
    num = len(problem.targets)
    weights = np.tile(problem.start, (num + 1, 1))
    for step, (x, y) in enumerate(zip(problem.inputs, problem.targets, strict=True)):
        gradient = (weights @ x - y)[:, None] * x * mask
        gradient[step] = 0
        weights -= lr * gradient
    return weights


def unlearning_errors(problem: Regression, lr: float, mask: Array) -> Array:
    """e of every sample (t,): distance between adding its start gradient back and never having taken its step."""
    weights = trained(problem, lr, mask)
    residuals = problem.inputs @ problem.start - problem.targets
    unlearned = weights[-1] + lr * mask * residuals[:, None] * problem.inputs
    return np.asarray(np.linalg.norm(unlearned - weights[:-1], axis=1))


def magnitude_mask(weights: Array, sparsity: float) -> Array:
    """1 for kept, 0 for the round(sparsity * d) smallest |weights|; masks of the same weights nest."""
    mask = np.ones_like(weights)
    mask[np.argsort(np.abs(weights), kind="stable")[: round(sparsity * len(weights))]] = 0
    return mask


def norm_times_curvature(problem: Regression, weights: Array, mask: Array) -> float:
    """|m * (theta_t - theta_0)| sigma(m)."""
    restricted = problem.hessian * np.outer(mask, mask)
    return float(np.linalg.norm(mask * (weights - problem.start)) * np.linalg.norm(restricted, 2))
