"""l1-sparse: schedule, limits, sparsity."""

import copy

import pytest
import torch

from papers.unlearn_sparse.method import L1SparseOptions, l1_sparse, l1_weight
from shared.classification.finetune import finetune
from shared.classification.options import SgdOptions

SETTING = {"lr": 0.02, "epochs": 4, "batch": 16}


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_zero_penalty_is_finetuning_to_the_bit(model, forget, retain, new_context):
    options = L1SparseOptions(**SETTING, gamma=0.0)
    sparse = l1_sparse(copy.deepcopy(model), forget, retain, options, new_context())
    plain = finetune(copy.deepcopy(model), forget, retain, SgdOptions(**SETTING), new_context())
    assert torch.equal(parameters(sparse), parameters(plain))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("decaying", [1, 0.75, 0.5, 0.25]),
        ("constant", [1, 1, 1, 1]),
        ("growing", [0, 0.25, 0.5, 0.75]),
    ],
)
def test_schedules(schedule, expected):
    options = L1SparseOptions(**SETTING, gamma=1.0, schedule=schedule)
    assert [l1_weight(options, epoch) for epoch in range(4)] == expected


def test_one_step_adds_the_subgradient(model, forget, retain, new_context):
    """Difference of one step with and without the penalty: -lr gamma sign(theta)."""
    setting = {"lr": 0.02, "epochs": 1, "batch": 100}
    with_penalty = l1_sparse(
        copy.deepcopy(model), forget, retain, L1SparseOptions(**setting, gamma=1e-2), new_context()
    )
    without = finetune(copy.deepcopy(model), forget, retain, SgdOptions(**setting), new_context())
    change = parameters(with_penalty) - parameters(without)
    expected = -0.02 * 1e-2 * parameters(model).sign()
    torch.testing.assert_close(change, expected, atol=1e-7, rtol=1e-3)


def test_penalty_makes_weights_smaller(model, forget, retain, new_context):
    def norm(gamma):
        options = L1SparseOptions(**SETTING, gamma=gamma)
        trained = l1_sparse(copy.deepcopy(model), forget, retain, options, new_context())
        return parameters(trained).abs().sum()

    assert norm(0.0) > norm(1e-3) > norm(1e-2)
