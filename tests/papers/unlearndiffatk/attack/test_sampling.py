"""Straight-through sampling: law, seeds, value and gradient."""

import pytest
import torch

from papers.unlearndiffatk.attack.sampling import draw_index, sampled_embeddings
from papers.unlearndiffatk.attack.simplex import project_exact


def test_draws_follow_the_rows():
    rows = torch.tensor([[[0.1, 0.0, 0.6, 0.3]]])
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    counts = torch.stack([draw_index(rows, u[None]).flatten() for u in uniform]).flatten().bincount(minlength=4)
    assert counts[1] == 0
    assert (counts / 4000 - rows.flatten()).abs().max() < 0.03


def test_rows_need_not_sum_to_one():
    rows = torch.tensor([[[0.1, 0.0, 0.6, 0.3]]])
    for u in torch.linspace(0, 0.999, 50):
        assert draw_index(7.3 * rows, u[None]) == draw_index(rows, u[None])


def test_impossible_entries_are_never_drawn_at_the_ends():
    rows = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 1.0, 0.0]]])
    assert draw_index(rows, torch.tensor([0.0])) == 2
    assert draw_index(rows, torch.tensor([1 - 2**-24])) == 4


def test_every_prompt_sees_the_same_numbers():
    rows = torch.rand(1, 3, 11, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1)
    index = draw_index(rows, torch.rand(3, generator=torch.Generator().manual_seed(1)))
    assert index.shape == (4, 3)
    assert (index == index[:1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_is_one_hot_times_table_to_the_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    rows = project_exact(torch.rand(2, 3, 11, generator=generator, dtype=dtype))
    table = torch.randn(11, 5, generator=generator, dtype=dtype)
    uniform = torch.rand(3, generator=generator)
    one_hot = torch.nn.functional.one_hot(draw_index(rows, uniform), 11).to(dtype)
    assert torch.equal(sampled_embeddings(rows, uniform, table), one_hot @ table)


def test_gradient_is_that_of_the_one_hot_clipped():
    generator = torch.Generator().manual_seed(0)
    table = 2 * torch.randn(11, 5, generator=generator)
    rows = project_exact(torch.rand(2, 3, 11, generator=generator)).requires_grad_(True)
    uniform, weight = torch.rand(3, generator=generator), torch.randn(2, 3, 5, generator=generator)
    one_hot = torch.nn.functional.one_hot(draw_index(rows, uniform), 11).float().requires_grad_(True)
    (plain,) = torch.autograd.grad(((one_hot @ table) * weight).sum(), one_hot)
    (mine,) = torch.autograd.grad((sampled_embeddings(rows, uniform, table) * weight).sum(), rows)
    assert plain.abs().max() > 1
    torch.testing.assert_close(mine, torch.nn.functional.hardtanh(plain))
