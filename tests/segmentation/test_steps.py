"""Epochs of steps: which samples, and that it does not matter who makes a batch, or when."""

from collections import Counter

import numpy as np
import pytest
import torch

from shared.errors import DataError
from shared.segmentation.steps import Steps, plan_epoch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(step):
    """A batch that shows everything that it was made of."""
    return torch.tensor([step.number, *step.positions, *step.rng.integers(0, 10**9, 3)])


def test_one_pass_takes_every_sample_once_but_for_the_last_smaller_batch():
    plan = plan_epoch(23, 5, None, generator())
    assert plan.order.shape == (4, 5)
    assert len(set(plan.order.flatten().tolist())) == 20


def test_a_chosen_number_of_steps_takes_every_sample_before_any_comes_again():
    plan = plan_epoch(6, 4, 4, generator())
    counts = Counter(plan.order.flatten().tolist())
    assert set(counts) == set(range(6))
    assert max(counts.values()) - min(counts.values()) == 1
    assert plan_epoch(100, 4, 3, generator()).order.shape == (3, 4)


def test_epochs_differ_and_repeat_with_the_generator():
    stream = generator()
    first, second = plan_epoch(50, 5, None, stream), plan_epoch(50, 5, None, stream)
    assert not torch.equal(first.order, second.order)
    assert first.seed != second.seed
    again = plan_epoch(50, 5, None, generator())
    assert torch.equal(again.order, first.order)
    assert again.seed == first.seed


@pytest.mark.parametrize(("num", "steps"), [(3, None), (0, 2)])
def test_too_few_samples_are_one_line(num, steps):
    with pytest.raises(DataError, match=f"{num} training samples make no batch of 4"):
        plan_epoch(num, 4, steps, generator())


def test_batches_come_in_order_and_each_has_a_stream_of_its_own():
    plan = plan_epoch(20, 4, None, generator())
    made = torch.stack(list(Steps(plan, numbers)))
    assert len(Steps(plan, numbers)) == len(made) == 5
    assert made[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(made[:, 1:5], plan.order)
    assert len(np.unique(made[:, 5:])) == 15


def test_skipped_batches_are_never_made():
    plan = plan_epoch(20, 4, None, generator())
    seen = []
    steps = Steps(plan, lambda step: seen.append(step.number) or numbers(step))
    steps.skip(3)
    rest = list(steps)
    assert seen == [3, 4]
    assert torch.equal(torch.stack(rest), torch.stack(list(Steps(plan, numbers)))[3:])


def test_workers_make_the_same_batches_and_leave_the_global_stream_alone():
    plan = plan_epoch(20, 4, None, generator())
    torch.manual_seed(5)
    steps = Steps(plan, numbers, workers=2)
    steps.skip(1)
    found = torch.stack(list(steps))
    assert torch.equal(found, torch.stack(list(Steps(plan, numbers)))[1:])
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
