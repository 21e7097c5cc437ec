"""The largest of many scores."""

import torch

from shared.training.ranking import largest


def test_same_as_ranking_twice_in_stable_order():
    """rank = argsort(argsort(-scores)), chosen = rank < num; ties by position."""
    generator = torch.Generator().manual_seed(0)
    for scores in (
        torch.rand(997, generator=generator),
        torch.randint(0, 4, (997,), generator=generator).float(),  # mostly ties
        torch.zeros(997),
    ):
        rank = (-scores).argsort(stable=True).argsort()
        for num in (0, 1, 300, 996, 997):
            assert torch.equal(largest(scores, num), rank < num)
