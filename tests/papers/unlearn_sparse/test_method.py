"""l1-sparse and FT with pruning: schedule, limits, sparsity."""

import copy

import pytest
import torch

from papers.unlearn_sparse.method import (
    FinetunePruneOptions,
    GradualPruning,
    L1SparseOptions,
    finetune_prune,
    l1_sparse,
    l1_weight,
)
from shared.classification.finetune import finetune
from shared.classification.options import SgdOptions
from shared.classification.pruning import apply_mask, conv_weights, omp_mask, sparsity

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


def test_last_epochs_without_penalty():
    options = L1SparseOptions(**{**SETTING, "epochs": 5}, gamma=1.0, no_l1_epochs=1)
    assert [l1_weight(options, epoch) for epoch in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    with pytest.raises(ValueError, match="schedule: constant"):
        L1SparseOptions(**SETTING, gamma=1.0, no_l1_epochs=4)


def test_zeros_stay_zeros(model, forget, retain, new_context):
    """On a pruned network neither the penalty nor fine-tuning wakes a weight, and all others move."""
    mask = omp_mask(model, 0.9)
    apply_mask(model, mask)
    for method, options in (
        (finetune, SgdOptions(**SETTING)),
        (l1_sparse, L1SparseOptions(**SETTING, gamma=1e-3)),
    ):
        unlearned = method(copy.deepcopy(model), forget, retain, options, new_context(mask=mask))
        weights = dict(unlearned.named_parameters())
        assert sparsity(unlearned) == sparsity(mask)
        for name, kept in mask.items():
            assert not weights[name][~kept].any()
        assert not torch.equal(parameters(unlearned), parameters(model))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_finetune_prune_ends_at_the_wanted_sparsity(epochs, model, forget, retain, context):
    options = FinetunePruneOptions(**{**SETTING, "epochs": epochs}, sparsity=0.9)
    unlearned = finetune_prune(model, forget, retain, options, context)
    num = sum(weight.numel() for weight in conv_weights(model).values())
    assert round(sparsity(unlearned) * num) == round(0.9 * num)


def test_finetune_prune_halves_in_two_steps(model, forget, retain, new_context, monkeypatch):
    """Four epochs to 75 %: half of the weights go before epoch 0, half of the rest before epoch 2."""
    seen = {}
    prune = GradualPruning.on_epoch_start

    def watched(self, state):
        prune(self, state)
        seen[state.epoch] = sparsity(state.model)

    monkeypatch.setattr(GradualPruning, "on_epoch_start", watched)
    finetune_prune(model, forget, retain, FinetunePruneOptions(**SETTING, sparsity=0.75), new_context())
    assert seen == pytest.approx({0: 0.5, 1: 0.5, 2: 0.75, 3: 0.75}, abs=1e-4)


def test_finetune_prune_resumes_with_its_mask(model, forget, retain, new_context, tmp_path):
    options = FinetunePruneOptions(**SETTING, sparsity=0.9)
    first, again = (
        finetune_prune(copy.deepcopy(model), forget, retain, options, new_context(workdir=tmp_path, key="a"))
        for _ in range(2)
    )
    assert torch.equal(parameters(first), parameters(again))
