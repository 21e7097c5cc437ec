"""Matching is one-to-one and optimal: claim C9 of the paper's room."""

from itertools import permutations

import numpy as np
import pytest
import torch

from papers.promptnucseg.prompter.matching import match
from shared.errors import UserError


def scene(num_points, num_nuclei, num_classes=2, seed=0, images=1):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(images, num_points, 2, generator=generator) * 30
    logits = torch.randn(images, num_points, num_classes + 1, generator=generator) * 2
    nuclei = torch.rand(images, num_nuclei, 2, generator=generator) * 30
    classes = torch.randint(0, num_classes, (images, num_nuclei), generator=generator)
    return points, logits, nuclei, classes


def best_by_trying_all(points, logits, nuclei, classes, alpha):
    """Total weight of the best matching of as many pairs as there can be, in plain Python."""
    q = logits.softmax(-1).numpy()
    weight = np.array(
        [
            [q[i, classes[j]] - alpha * np.hypot(*(points[i] - nuclei[j]).numpy()) for j in range(len(nuclei))]
            for i in range(len(points))
        ]
    )
    if len(points) < len(nuclei):
        weight = weight.T
    rows, columns = weight.shape
    return max(sum(weight[chosen[j], j] for j in range(columns)) for chosen in permutations(range(rows), columns)), (
        weight if len(points) >= len(nuclei) else weight.T
    )


@pytest.mark.parametrize(("num_points", "num_nuclei"), [(6, 6), (6, 3), (3, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("seed", range(8))
def test_total_weight_is_the_best_of_all_matchings(num_points, num_nuclei, seed):
    points, logits, nuclei, classes = scene(num_points, num_nuclei, seed=seed)
    matched = match(points, logits, nuclei, classes, 0.1)[0]
    best, weight = best_by_trying_all(points[0], logits[0], nuclei[0], classes[0], 0.1)
    pairs = [(int(matched[j]), j) for j in range(num_nuclei) if matched[j] >= 0]
    assert len(pairs) == min(num_points, num_nuclei)
    assert len({i for i, _ in pairs}) == len(pairs)
    assert sum(weight[i, j] for i, j in pairs) == pytest.approx(best, abs=1e-5)


def test_images_are_matched_apart_and_missing_nuclei_get_none():
    points, logits, nuclei, classes = scene(6, 4, images=3)
    classes[1, 2:] = -1
    classes[2] = -1
    nuclei[1, 2:] = nuclei[2] = 0
    matched = match(points, logits, nuclei, classes, 0.1)
    for image, num in enumerate((4, 2, 0)):
        assert (matched[image, num:] == -1).all()
        if num:
            alone = match(
                points[image : image + 1],
                logits[image : image + 1],
                nuclei[image : image + 1, :num],
                classes[image : image + 1, :num],
                0.1,
            )
            assert torch.equal(matched[image, :num], alone[0])


def test_a_heavy_distance_gives_the_nearest_and_none_the_likeliest():
    points = torch.tensor([[[0.0, 0.0], [10.0, 0.0]]])
    nuclei, classes = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0]])
    logits = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]])
    assert match(points, logits, nuclei, classes, 100.0).item() == 0
    assert match(points, logits, nuclei, classes, 0.0).item() == 1


def test_the_probability_of_the_nucleus_own_class_counts():
    points, nuclei = torch.zeros(1, 2, 2), torch.zeros(1, 1, 2)
    logits = torch.tensor([[[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])
    assert match(points, logits, nuclei, torch.tensor([[0]]), 0.1).item() == 0
    assert match(points, logits, nuclei, torch.tensor([[1]]), 0.1).item() == 1


def test_no_gradient_and_a_diverged_network_is_one_line():
    points, logits, nuclei, classes = scene(4, 2)
    assert not match(points.requires_grad_(), logits.requires_grad_(), nuclei, classes, 0.1).requires_grad
    with pytest.raises(UserError, match="no longer finite"):
        match(points * float("nan"), logits, nuclei, classes, 0.1)
