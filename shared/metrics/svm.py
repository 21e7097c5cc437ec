"""The two-class RBF support vector machine of the membership attack, solved through a low-rank
kernel.

Same optimisation problem as `sklearn.svm.SVC(C, kernel="rbf", gamma)`: libsvm walks through tens of
thousands of kernel columns, although the kernel of a one-dimensional feature has numerical rank 10
to 60. Here the dual

    min_a  1/2 a'Qa - 1'a,   0 <= a_i <= C m_i,   y'a = 0,   Q_ij = y_i y_j K(x_i, x_j)

is solved by a primal-dual interior point (Mehrotra) with K = LL' from a pivoted Cholesky
factorisation, as Fine and Scheinberg (JMLR 2001) propose. m_i counts equal points of one class:
merging them leaves the problem the same. libsvm stops at a tolerance of 1e-3 on its gradient, this
solver at 1e-9, so a point whose decision value is closer to 0 than libsvm's own error could be
classified differently; tests and benchmarks/membership_attack.py compare the two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Above this rank (probability vectors of many classes) libsvm is the faster solver.
MAX_RANK = 300


@dataclass(frozen=True)
class SupportVectors:
    """f(x) = sum_i coefficients_i exp(-gamma |points_i - x|^2) + bias; the class is f(x) > 0."""

    points: Array
    coefficients: Array
    bias: float
    gamma: float

    def decide(self, queries: Array, chunk: int = 512) -> Array:
        """Decision values (Q,) of `queries` (Q, D)."""
        values = np.empty(len(queries))
        for start in range(0, len(queries), chunk):
            block = queries[start : start + chunk]
            values[start : start + chunk] = rbf(block, self.points, self.gamma) @ self.coefficients
        return values + self.bias


def rbf(a: Array, b: Array, gamma: float) -> Array:
    """Kernel matrix exp(-gamma |a_i - b_j|^2) of (N, D) and (M, D)."""
    if a.shape[1] == 1:
        squared = np.subtract(a, b.T)
        np.square(squared, out=squared)
    else:
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        np.maximum(squared, 0, out=squared)
    squared *= -gamma
    return np.exp(squared, out=squared)


def pivoted_cholesky(points: Array, gamma: float, tolerance: float = 1e-12) -> Array | None:
    """L (N, R) with |K - LL'| <= tolerance in every entry, or None if that needs more than MAX_RANK
    columns."""
    num_points = len(points)
    factor = np.empty((num_points, min(MAX_RANK, num_points)), order="F")
    residual = np.ones(num_points)
    for rank in range(factor.shape[1]):
        pivot = int(residual.argmax())
        if residual[pivot] <= tolerance:
            return factor[:, :rank]
        column = rbf(points, points[pivot : pivot + 1], gamma)[:, 0]
        column -= factor[:, :rank] @ factor[pivot, :rank]
        column /= np.sqrt(residual[pivot])
        factor[:, rank] = column
        residual -= column**2
        residual[pivot] = 0
    return factor if residual.max() <= tolerance else None


def fit(points: Array, signs: Array, bounds: Array, gamma: float) -> SupportVectors | None:
    """Train on `points` (N, D) with classes `signs` (N,) in {-1, 1} and box bounds C m_i (N,).

    Both classes must be present. Returns None when the kernel's rank is above MAX_RANK, or the
    interior point has not converged: the caller then asks libsvm.
    """
    factor = pivoted_cholesky(points, gamma)
    alphas = None
    if factor is not None:
        alphas = _interior_point(factor * signs[:, None], signs, bounds)
    if factor is None or alphas is None:
        return None
    inner = factor @ (factor.T @ (alphas * signs))
    keep = alphas > 0
    return SupportVectors(points[keep], (alphas * signs)[keep], _bias(alphas, signs, bounds, inner), gamma)


def _bias(alphas: Array, signs: Array, bounds: Array, inner: Array) -> float:
    """libsvm's rule: mean over free vectors; without any, the middle of the interval that
    optimality allows."""
    gaps = signs - inner
    free = (alphas > 0) & (alphas < bounds)
    if free.any():
        return float(gaps[free].mean())
    at_upper = alphas > 0
    # optimality at a = 0 wants y f >= 1, at a = C it wants y f <= 1
    lower_bounds = gaps[at_upper == (signs < 0)]
    upper_bounds = gaps[at_upper == (signs > 0)]
    return float((lower_bounds.max() + upper_bounds.min()) / 2)


@dataclass(frozen=True)
class _Point:
    """Where the interior point stands. slack: bounds - alphas, a variable of its own because the
    difference would cancel for a point of many copies; low, high: multipliers of alphas >= 0 and of
    slack >= 0."""

    alphas: Array
    slack: Array
    low: Array
    high: Array
    bias: float

    def gap(self) -> float:
        """Mean complementarity."""
        return float(self.low @ self.alphas + self.high @ self.slack) / (2 * len(self.alphas))

    def longest(self, step: "_Point") -> float:
        """Largest multiple of `step` that keeps everything non-negative."""
        pairs = zip(vars(self).values(), vars(step).values(), strict=True)
        return min(_length(value, change) for value, change in list(pairs)[:4])

    def moved(self, step: "_Point", length: float) -> "_Point":
        """This point plus length * step."""
        pairs = zip(vars(self).values(), vars(step).values(), strict=True)
        return _Point(*(value + length * change for value, change in pairs))


def _interior_point(factor: Array, signs: Array, bounds: Array, iterations: int = 100) -> Array | None:
    """Dual solution (N,) for Q = FF' (F: (N, R)), entries at a bound set to it exactly; None if it
    stalls."""
    ones = np.ones_like(bounds)
    at = _Point(bounds / 2, bounds / 2, ones, ones, 0.0)
    for _ in range(iterations):
        dual = factor @ (factor.T @ at.alphas) - 1 + at.bias * signs - at.low + at.high
        primal, gap = float(signs @ at.alphas), at.gap()
        feasible = np.abs(dual).max() < 1e-9 and abs(primal) < 1e-9 * bounds.sum()
        if feasible and gap < 3e-12 * bounds.mean():
            return _snap(at, bounds)
        solve = _newton(factor, at.low / at.alphas + at.high / at.slack, signs)
        affine = _direction(at, solve, dual, primal, 0 * ones, 0 * ones)
        ahead = at.moved(affine, min(1.0, at.longest(affine))).gap()
        centre = gap * (ahead / gap) ** 3
        # Mehrotra: aim at the central path, with the second-order error of the affine step taken
        # off
        low, high = centre - affine.alphas * affine.low, centre - affine.slack * affine.high
        step = _direction(at, solve, dual, primal, low, high)
        at = at.moved(step, min(1.0, 0.995 * at.longest(step)))
    return None


Solver = Callable[[Array, float], tuple[Array, float]]


def _direction(at: _Point, solve: Solver, dual: Array, primal: float, low: Array, high: Array) -> _Point:
    """Newton step towards alphas * multiplier = low and slack * multiplier = high."""
    right = -dual + low / at.alphas - at.low - high / at.slack + at.high
    step, bias = solve(right, -primal)
    step_low = (low - at.low * step) / at.alphas - at.low
    step_high = (high + at.high * step) / at.slack - at.high
    return _Point(step, -step, step_low, step_high, bias)


def _newton(factor: Array, diagonal: Array, signs: Array) -> Solver:
    """Solver of (D + FF') x + y b = r, y'x = q by the matrix inversion lemma, with one step of
    refinement."""
    scaled = factor / diagonal[:, None]
    core = scipy.linalg.cho_factor(np.eye(factor.shape[1]) + factor.T @ scaled)

    def once(right: Array) -> Array:
        return right / diagonal - scaled @ scipy.linalg.cho_solve(core, scaled.T @ right)

    def inverse(right: Array) -> Array:
        solution = once(right)
        return solution + once(right - diagonal * solution - factor @ (factor.T @ solution))

    inverse_signs = inverse(signs)

    def solve(right: Array, sum_right: float) -> tuple[Array, float]:
        solution = inverse(right)
        bias = float((signs @ solution - sum_right) / (signs @ inverse_signs))
        return solution - bias * inverse_signs, bias

    return solve


def _length(values: Array, step: Array) -> float:
    """Largest multiple of `step` that keeps `values` non-negative."""
    falling = step < 0
    return float((-values[falling] / step[falling]).min()) if falling.any() else np.inf


def _snap(at: _Point, bounds: Array) -> Array:
    """Entries whose multiplier is the larger of the complementary pair lie on their bound."""
    below = np.where(at.slack < at.high * bounds, bounds, at.alphas)
    return np.where(at.alphas < at.low * bounds, 0.0, below)
