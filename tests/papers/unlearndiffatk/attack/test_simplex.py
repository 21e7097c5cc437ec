"""The projection onto the simplex: against scipy's quadratic programme, its invariants, and the released bisection."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from papers.unlearndiffatk.attack.simplex import project_bisection, project_exact


def rows_of(num, size, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(num, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_exact_projection_solves_the_quadratic_programme(spread):
    for row in rows_of(4, 6, spread=spread):
        wanted = row.numpy()
        solved = minimize(
            lambda u, a=wanted: ((u - a) ** 2).sum(),
            np.full(6, 1 / 6),
            jac=lambda u, a=wanted: 2 * (u - a),
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda u: u.sum() - 1, "jac": lambda u: np.ones(6)},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(project_exact(row).numpy(), solved.x, atol=1e-6)


@pytest.mark.parametrize("project", [project_exact, project_bisection])
@pytest.mark.parametrize("size", [1, 2, 43, 1000])
def test_result_lies_on_the_simplex(project, size):
    rows = rows_of(5, size, spread=0.5)
    projected = project(rows)
    assert projected.shape == rows.shape
    assert (projected >= 0).all()
    assert (projected <= 1).all()
    # the bisection knows the multiplier to 1e-5, for each entry of the support
    assert ((projected.sum(-1) - 1).abs() <= size * 1e-5 + 1e-9).all()


def test_both_projections_agree_within_the_tolerance():
    rows = rows_of(20, 43)
    assert (project_exact(rows) - project_bisection(rows)).abs().max() <= 1e-5


def test_projection_is_idempotent_and_keeps_points_of_the_simplex():
    uniform = torch.full((3, 43), 1 / 43)
    corner = torch.eye(43)[:3]
    for points in (uniform, corner, project_exact(rows_of(3, 43)).float()):
        torch.testing.assert_close(project_exact(points), points, atol=1e-6, rtol=0)
        assert torch.equal(project_bisection(points), points)


def test_a_shift_of_all_entries_changes_nothing():
    rows = rows_of(3, 12)
    torch.testing.assert_close(project_exact(rows + 5.0), project_exact(rows))


def test_order_is_kept_and_the_nearest_corner_is_reached():
    rows = rows_of(3, 12)
    projected = project_exact(rows)
    assert torch.equal(projected.argmax(-1), rows.argmax(-1))
    far = torch.zeros(1, 12)
    far[0, 4] = 9.0
    assert torch.equal(project_exact(far), torch.eye(12)[4:5])


def test_released_row_sums_may_miss_one_over_a_large_vocabulary():
    """Trap: uniform rows after a step of Adam; the sum is off by more than rounding."""
    rows = torch.full((2, 49408), 1 / 49408) + 0.01 * torch.sign(rows_of(2, 49408)).float()
    errors = (project_bisection(rows).sum(-1) - 1).abs()
    assert errors.max() > 1e-3
    assert errors.max() <= 49408 * 1e-5
    assert (project_exact(rows).sum(-1) - 1).abs().max() < 1e-3


def test_leading_dimensions_are_rows():
    rows = rows_of(6, 9).view(2, 3, 9)
    for project in (project_exact, project_bisection):
        torch.testing.assert_close(project(rows)[1, 2], project(rows[1, 2]), atol=1e-5, rtol=0)
