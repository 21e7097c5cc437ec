"""Random labels: their law, their order, their seeds."""

import torch

from shared.classification.batches import random_labels
from shared.classification.options import RelabelOptions
from shared.classification.relabel import relabelled_epoch


def epoch(forget, retain, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    settings = RelabelOptions(lr=0.1, batch=16, **options)
    return list(relabelled_epoch(forget, retain, settings, generator))


def test_labels_are_uniform_and_may_be_the_true_one(forget):
    """E: a share 1/C of D_f keeps its label. 3000 draws of probability 1/3: sd 0.0086."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_labels(forget, generator) for _ in range(100)])
    assert abs((draws == forget.labels).float().mean().item() - 1 / 3) < 0.035
    shares = torch.bincount(draws.flatten(), minlength=3) / draws.numel()
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.035, rtol=0)


def test_other_labels_are_uniform_over_the_rest(forget):
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_labels(forget, generator, exclude_own=True) for _ in range(100)])
    assert not (draws == forget.labels).any()
    shift = (draws - forget.labels) % 3
    assert abs((shift == 1).float().mean().item() - 0.5) < 0.04


def test_sequential_passes_the_forget_set_first(forget, retain):
    batches = epoch(forget, retain)
    assert [len(b.labels) for b in batches] == [16, 14, 16, 16, 16, 12]
    seen = torch.cat([b.images for b in batches])
    as_set = {tuple(row) for row in forget.images.flatten(1)[:, :5].tolist()}
    flags = [tuple(row) in as_set for row in seen.flatten(1)[:, :5].tolist()]
    assert flags == [True] * 30 + [False] * 60


def test_retained_images_keep_their_labels_in_both_orders(forget, retain):
    truth = {tuple(i.flatten()[:5].tolist()): int(y) for i, y in zip(retain.images, retain.labels, strict=True)}
    for interleave in ("sequential", "mixed"):
        found = 0
        for batch in epoch(forget, retain, interleave=interleave):
            for image, label in zip(batch.images, batch.labels, strict=True):
                key = tuple(image.flatten()[:5].tolist())
                if key in truth:
                    found += 1
                    assert truth[key] == int(label)
        assert found == 60


def test_mixed_is_one_stream(forget, retain):
    batches = epoch(forget, retain, interleave="mixed")
    assert [len(b.labels) for b in batches] == [16] * 5 + [10]


def test_without_retain_term_only_the_forget_set_is_seen(forget, retain):
    assert sum(len(b.labels) for b in epoch(forget, retain, retain_term=False)) == 30


def test_every_epoch_draws_new_labels(forget, retain):
    generator = torch.Generator().manual_seed(0)
    options = RelabelOptions(lr=0.1, batch=64)
    first, second = (next(iter(relabelled_epoch(forget, retain, options, generator))) for _ in range(2))
    assert not torch.equal(first.labels[first.indices.argsort()], second.labels[second.indices.argsort()])
