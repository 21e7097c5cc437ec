"""Fisher forgetting against loops written out, the Hessian of a softmax, and its limits."""

import copy

import pytest
import torch
import torch.nn.functional as F

from shared.classification.fisher import (
    FisherOptions,
    fisher_diagonal,
    fisher_forgetting,
    forgotten_classes,
    noise_variance,
)
from shared.classification.pruning import omp_mask


def class_zero(images):
    return images.subset((images.labels == 0).nonzero()[:, 0])


def other_classes(images):
    return images.subset((images.labels != 0).nonzero()[:, 0])


def naive(model, images, group):
    """The definition, one backward pass at a time."""
    model.eval()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    groups = images.split(group)
    for some in groups:
        for label in range(3):
            logits = model(some)
            loss = F.cross_entropy(logits, torch.full((len(some),), label))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += logits.softmax(1)[:, label].mean().detach() * gradient**2
    return {name: value / len(groups) for name, value in total.items()}


@pytest.mark.parametrize(("per_sample", "group"), [(True, 1), (False, 8)])
@pytest.mark.parametrize("at_once", [1, 2, 7, 64])
def test_diagonal_equals_the_loop(per_sample, group, at_once, model, retain):
    model.eval()
    images = retain.subset(range(20))  # the last batch has four images
    found = fisher_diagonal(model, images.batches(8, shuffle=False), 3, per_sample, at_once)
    for name, expected in naive(model, images.images, group).items():
        torch.testing.assert_close(found[name], expected, atol=1e-9, rtol=1e-4)


def test_bias_of_the_last_layer_has_a_closed_form(model, retain):
    """Gradient of CE(., y) by a bias is p - e_y: F is the mean of p (1 - p), and q (1 - q) with the batch's mean q."""
    model.eval()
    p = model(retain.images).softmax(1).detach()
    sample, batch = (
        fisher_diagonal(model, retain.batches(60, shuffle=False), 3, kind, 64)["fc.bias"] for kind in (True, False)
    )
    torch.testing.assert_close(sample, (p * (1 - p)).mean(0))
    torch.testing.assert_close(batch, p.mean(0) * (1 - p.mean(0)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_alpha_zero_is_the_identity_for_random_forgetting(model, forget, retain, context):
    unlearned = fisher_forgetting(copy.deepcopy(model), forget, retain, FisherOptions(alpha=0.0), context)
    assert torch.equal(weights(unlearned), weights(model))


def test_alpha_zero_resets_only_the_forgotten_rows(model, forget, retain, context):
    side = class_zero(forget), other_classes(retain)
    unlearned = fisher_forgetting(copy.deepcopy(model), *side, FisherOptions(alpha=0.0), context)
    for (name, value), before in zip(unlearned.named_parameters(), model.parameters(), strict=True):
        first = 1 if name.startswith("fc.") else 0
        assert torch.equal(value[first:], before[first:])
    assert unlearned.fc.weight[0].abs().max() < 5 * 1e-3**0.5
    assert unlearned.fc.weight.detach()[0].std().item() == pytest.approx(1e-3**0.5, rel=0.3)
    last = fisher_forgetting(
        copy.deepcopy(model), forget, retain, FisherOptions(alpha=0.0, reset_last_class=True), context
    )
    assert torch.equal(last.fc.weight[:2], model.fc.weight[:2])
    assert not torch.equal(last.fc.weight[2], model.fc.weight[2])


def test_forgotten_classes(forget, retain):
    assert forgotten_classes(forget, retain).tolist() == []
    assert forgotten_classes(class_zero(forget), other_classes(retain)).tolist() == [0]


def test_noise_has_the_variance_of_the_formula():
    options = FisherOptions(alpha=2.0)
    information = torch.tensor([[1.0, 0.5], [0.0, 1e-4]])
    expected = torch.tensor([[1.5, 1.5], [1e3, 1e3]])
    torch.testing.assert_close(noise_variance(information, False, None, options), 2 * expected)
    torch.testing.assert_close(noise_variance(information, True, None, options)[1], torch.full((2,), 2 * 100.0 * 10))
    torch.testing.assert_close(noise_variance(information[0], False, None, options), torch.tensor([20.0, 40.0]))


def test_pruned_weights_enter_the_average_only_as_released():
    information, kept = torch.tensor([[1.0, 1.0, 7.0, 7.0]]), torch.tensor([[True, True, False, False]])
    ours = noise_variance(information, False, kept, FisherOptions(alpha=1.0))
    released = noise_variance(information, False, kept, FisherOptions(alpha=1.0, average_pruned=True))
    torch.testing.assert_close(ours, torch.ones(1, 4))
    torch.testing.assert_close(released, torch.full((1, 4), (1 + 1 + 1e3 + 1e3) / 4))
    nothing_kept = noise_variance(information, False, torch.zeros_like(kept), FisherOptions(alpha=1.0))
    assert torch.equal(nothing_kept, torch.zeros(1, 4))


def test_pruned_weights_stay_zero_and_noise_grows_with_alpha(model, forget, retain, new_context):
    mask = omp_mask(model, 0.9)

    def change(alpha):
        context = new_context(mask=mask)
        unlearned = fisher_forgetting(copy.deepcopy(model), forget, retain, FisherOptions(alpha=alpha, num=40), context)
        difference = dict(unlearned.named_parameters())
        for name, kept in mask.items():
            assert torch.equal(difference[name][~kept], dict(model.named_parameters())[name][~kept])
        assert context.meter.steps == 2 * 3
        return (weights(unlearned) - weights(model)).norm()

    # the same draws: the noise scales with the square root
    assert change(4e-6) == pytest.approx(2 * float(change(1e-6)), rel=1e-3)


def test_one_seed_is_one_result(model, forget, retain, new_context):
    options = FisherOptions(alpha=1e-6, num=30)
    first, again, other = (
        weights(fisher_forgetting(copy.deepcopy(model), forget, retain, options, new_context(seed=seed)))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
