"""Sampling: orders are permutations, padding comes last, every token has the same chance."""

import torch

from papers.mimdet.models.encoder import num_kept
from papers.mimdet.models.sampling import put_back, random_order, take_tokens, valid_tokens

CPU = torch.device("cpu")


def test_tokens_with_at_least_one_pixel():
    valid = valid_tokens(torch.tensor([[64, 64], [33, 16], [1, 49]]), (4, 4), 16)
    assert valid.sum(1).tolist() == [16, 3, 4]
    assert valid[1].reshape(4, 4)[:3, 0].all()
    assert valid[2].reshape(4, 4)[0].all()


def test_orders_are_permutations_with_padding_last():
    valid = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)) < 0.6
    order = random_order(valid, CPU)
    assert torch.equal(order.sort(1).values, torch.arange(50).expand(6, 50))
    for row, mask in zip(order, valid, strict=True):
        number = int(mask.sum())
        assert mask[row[:number]].all()
        assert not mask[row[number:]].any()


def test_each_image_draws_its_own_noise_and_a_generator_repeats_it():
    valid = torch.ones(4, 40, dtype=torch.bool)
    first, second = (random_order(valid, CPU, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert len({tuple(row.tolist()) for row in first}) == 4
    assert not torch.equal(random_order(valid, CPU), random_order(valid, CPU))


def test_every_token_has_the_same_chance():
    kept = random_order(torch.ones(4000, 20, dtype=torch.bool), CPU)[:, :5]
    share = torch.bincount(kept.flatten(), minlength=20) / 4000
    torch.testing.assert_close(share, torch.full((20,), 0.25), atol=0.03, rtol=0)


def test_putting_back_undoes_taking():
    tokens = torch.randn(3, 30, 4)
    order = random_order(torch.ones(3, 30, dtype=torch.bool), CPU)
    torch.testing.assert_close(put_back(take_tokens(tokens, order), order), tokens)
    torch.testing.assert_close(take_tokens(tokens, order)[1, 7], tokens[1, order[1, 7]])


def test_the_number_of_kept_tokens_is_cut_off():
    assert [num_kept(2500, ratio) for ratio in (0.25, 0.5, 0.75)] == [625, 1250, 1875]
    assert num_kept(99, 0.5) == 49
    assert num_kept(3, 0.1) == 1  # a tiny picture still has one token
