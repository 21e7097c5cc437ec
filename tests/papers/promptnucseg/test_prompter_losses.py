"""The paper's equations, term by term, in plain Python; and the released variants."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from papers.promptnucseg.prompter.losses import PromptBatch, foreground_loss, prompter_loss
from papers.promptnucseg.prompter.matching import match
from papers.promptnucseg.prompter.model import Predicted
from papers.promptnucseg.prompter.options import PrompterTraining, SmallNet

SIZE = 16


def options(**change):
    return PrompterTraining(backbone=SmallNet(), levels=2, num_classes=2, background_weight=0.3, **change)


def example(counts=(3, 1, 0), seed=0, num_anchors=5):
    """Random predictions and a batch of images with the given numbers of nuclei."""
    generator = torch.Generator().manual_seed(seed)
    images, most = len(counts), max(1, *counts)
    predicted = Predicted(
        torch.rand(images, num_anchors, 2, generator=generator) * SIZE,
        torch.randn(images, num_anchors, 3, generator=generator),
        torch.randn(images, 1, SIZE, SIZE, generator=generator),
    )
    classes = torch.randint(0, 2, (images, most), generator=generator)
    for row, num in enumerate(counts):
        classes[row, num:] = -1
    batch = PromptBatch(
        torch.zeros(images, 3, SIZE, SIZE, dtype=torch.uint8),
        torch.rand(images, SIZE, SIZE, generator=generator) > 0.5,
        torch.rand(images, most, 2, generator=generator) * SIZE,
        classes,
        torch.full((images,), sum(counts) / images),
    )
    return predicted, batch


def assigned(predicted, batch):
    """(image, anchor) -> nucleus."""
    matched = match(predicted.points, predicted.logits, batch.nuclei, batch.classes, 0.1)
    return {
        (i, int(matched[i, j])): j
        for i in range(len(matched))
        for j in range(matched.shape[1])
        if batch.classes[i, j] >= 0 and matched[i, j] >= 0
    }


def test_classification_as_in_the_paper():
    predicted, batch = example()
    pairs, log_q = assigned(predicted, batch), predicted.logits.log_softmax(-1)
    images, num_anchors, _ = log_q.shape
    total = 0.0
    for i in range(images):
        found = sum(log_q[i, a, batch.classes[i, pairs[i, a]]] for a in range(num_anchors) if (i, a) in pairs)
        empty = sum(log_q[i, a, 2] for a in range(num_anchors) if (i, a) not in pairs)
        total -= (found + 0.3 * empty) / num_anchors
    terms = prompter_loss(predicted, batch, options(classification="anchor_mean"))
    assert terms.classification.item() == pytest.approx(total.item() / images, rel=1e-5)


def test_classification_as_released_is_torchs_weighted_mean():
    predicted, batch = example()
    targets = torch.full((3, 5), 2)
    for (i, a), j in assigned(predicted, batch).items():
        targets[i, a] = batch.classes[i, j]
    weights = torch.tensor([1, 1, 0.3])
    expected = F.cross_entropy(predicted.logits.flatten(0, 1), targets.flatten(), weights)
    assert prompter_loss(predicted, batch, options()).classification.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["squared", "euclidean"])
def test_distance(kind):
    predicted, batch = example()
    total = 0.0
    for (i, a), j in assigned(predicted, batch).items():
        dx, dy = (predicted.points[i, a] - batch.nuclei[i, j]).tolist()
        total += dx**2 + dy**2 if kind == "squared" else math.hypot(dx, dy)
    terms = prompter_loss(predicted, batch, options(distance=kind))
    assert terms.distance.item() == pytest.approx(5e-3 * total / 4, rel=1e-5)


def test_foreground_is_the_focal_loss_of_torchvision():
    predicted, batch = example()
    expected = sigmoid_focal_loss(predicted.mask[:, 0], batch.foreground.float(), alpha=-1, gamma=2.0, reduction="mean")
    assert foreground_loss(predicted.mask, batch.foreground).item() == pytest.approx(expected.item(), rel=1e-5)
    terms = prompter_loss(predicted, batch, options(aux_weight=3.0))
    assert terms.foreground.item() == pytest.approx(3 * expected.item(), rel=1e-5)


def test_perfect_predictions_cost_nothing():
    _, batch = example()
    points = torch.zeros(3, 5, 2)
    logits = torch.zeros(3, 5, 3)
    logits[..., 2] = 50.0
    for i, num in enumerate((3, 1, 0)):
        points[i, :num] = batch.nuclei[i, :num]
        logits[i, :num] = 50 * F.one_hot(batch.classes[i, :num], 3)
    mask = 100 * (batch.foreground.float()[:, None] - 0.5)
    for change in ({}, {"classification": "anchor_mean", "distance": "euclidean"}):
        for term in prompter_loss(Predicted(points, logits, mask), batch, options(**change)):
            assert term.item() == pytest.approx(0, abs=1e-6)


def test_a_batch_without_any_nucleus_teaches_background():
    predicted, batch = example((0, 0))
    predicted = Predicted(*(tensor.requires_grad_() for tensor in predicted))
    terms = prompter_loss(predicted, batch, options())
    assert terms.distance.item() == 0
    background = torch.full((10,), 2)
    expected = F.cross_entropy(predicted.logits.flatten(0, 1), background)
    assert terms.classification.item() == pytest.approx(expected.item(), rel=1e-5)
    total = sum(terms)
    total.backward()
    assert torch.isfinite(total)
    assert (predicted.logits.grad[..., 2] < 0).all()
    assert torch.isfinite(predicted.points.grad).all()


def test_more_nuclei_than_anchors():
    predicted, batch = example((9, 2), num_anchors=4)
    assert all(torch.isfinite(term) for term in prompter_loss(predicted, batch, options()))


def test_the_gradient_of_a_point_that_is_right_is_zero():
    predicted, batch = example((1,), num_anchors=1)
    points = batch.nuclei.clone().requires_grad_()
    prompter_loss(predicted._replace(points=points), batch, options(distance="euclidean")).distance.backward()
    assert not points.grad.any()


@pytest.mark.parametrize("change", [{}, {"classification": "anchor_mean", "distance": "euclidean"}])
def test_parts_of_a_batch_add_up_to_the_whole(change):
    """The loop cuts a batch by samples where memory is short, and weighs each part by its share of them."""
    predicted, batch = example((3, 1, 0, 2))
    whole = sum(prompter_loss(predicted, batch, options(**change)))
    parts = 0.0
    for rows in (slice(0, 1), slice(1, 4)):
        part = PromptBatch(*(tensor[rows] for tensor in batch))
        parts += sum(prompter_loss(Predicted(*(t[rows] for t in predicted)), part, options(**change))) * len(
            part.images
        )
    assert whole.item() == pytest.approx(parts.item() / 4, rel=1e-5)


def test_without_mask_there_is_no_third_term():
    predicted, batch = example()
    terms = prompter_loss(predicted._replace(mask=None), batch, options(aux_weight=0.0))
    assert terms.foreground.item() == 0
