"""The loss near the contour: its region, and what lies outside it does not matter."""

import numpy as np
import pytest
import torch

from papers.hq_sam.boundary_loss import boundary_point_loss, boundary_region
from shared.metrics.segmentation.boundary import boundary
from shared.segmentation.losses import point_loss


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def labels():
    """A disc and a ring, 64x64: the band is two pixels on each side of the contour."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    distance = ((rows - 30) ** 2 + (columns - 33) ** 2).sqrt()
    return torch.stack([distance < 15, (distance < 20) & (distance > 8)]).float()


def test_the_region_is_the_boundary_of_the_object_and_of_its_outside(labels):
    objects = labels.numpy() > 0.5
    inner = boundary(objects, 2)
    # beyond the picture's edge lies no contour: pad what is outside before its own boundary is taken
    outer = boundary(np.pad(~objects, ((0, 0), (5, 5), (5, 5)), constant_values=True), 2)[:, 5:-5, 5:-5]
    np.testing.assert_array_equal(boundary_region(labels).numpy() > 0, inner | outer)


def test_an_object_that_fills_the_picture_has_no_region():
    assert not boundary_region(torch.ones(1, 64, 64)).any()
    loss = boundary_point_loss(torch.zeros(1, 16, 16), torch.ones(1, 64, 64), generator(), 64)
    assert (loss.bce, loss.dice) == (0, 0)


def test_logits_outside_the_region_do_not_matter(labels):
    logits = 4 * labels - 2
    inside = boundary_region(boundary_region(labels))  # a pixel more than bilinear sampling reaches
    inside = (inside + boundary_region(labels)).clamp(max=1)
    far = (inside == 0).float()
    assert far.sum() > 1000
    logits.requires_grad_()
    # the same points for both: the most uncertain ones depend on the logits' size
    boundary_point_loss(logits, labels, generator(), 256).bce.backward()
    assert (logits.grad * far).abs().max() == 0
    assert logits.grad.abs().sum() > 0


def test_where_everything_is_near_the_contour_it_is_the_point_loss():
    stripes = torch.zeros(2, 64, 64)
    stripes[:, :, ::4] = stripes[:, :, 1::4] = 1
    assert boundary_region(stripes).all()
    logits = torch.randn(2, 64, 64, generator=generator(1))
    # points at the outer edge fade towards 0 in bilinear sampling
    ours, theirs = (
        boundary_point_loss(logits, stripes, generator(), 4000),
        point_loss(logits, stripes, generator(), 4000),
    )
    torch.testing.assert_close(ours.bce, theirs.bce, atol=0.01, rtol=0)
    torch.testing.assert_close(ours.dice, theirs.dice, atol=0.01, rtol=0)


def test_perfect_logits_cost_nothing(labels):
    loss = boundary_point_loss(40 * (labels - 0.5), labels, generator(), 512)
    assert loss.dice < 0.2
    far = boundary_point_loss(-40 * (labels - 0.5), labels, generator(), 512)
    assert far.bce > 5 > loss.bce
