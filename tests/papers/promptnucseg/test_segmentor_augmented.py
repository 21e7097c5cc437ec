"""Views and their inverses: what is marked in a picture is found again, and exactly there."""

import pytest
import torch

from papers.promptnucseg.segmentor.augmented import views

SIDE = 9


@pytest.mark.parametrize("view", views("six"))
def test_a_picture_turned_and_turned_back_is_the_same(view):
    picture = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(view.restored(view.pictures(picture)), picture)


@pytest.mark.parametrize("view", views("six"))
def test_points_stay_on_their_pixels(view):
    points = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).float()
    picture = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    x, y = points.long().unbind(-1)
    moved_x, moved_y = view.points(points, SIDE).long().unbind(-1)
    assert torch.equal(view.pictures(picture)[moved_y, moved_x], picture[y, x])


def test_six_different_views_the_identity_first():
    picture = torch.rand(SIDE, SIDE)
    shown = [view.pictures(picture) for view in views("six")]
    assert torch.equal(shown[0], picture)
    assert len({tuple(one.flatten().tolist()) for one in shown}) == 6
    assert len(views("one")) == 1


def test_the_released_rotations_turn_points_about_half_the_side():
    point = torch.tensor([[3.0, 1.0]])
    exact, official = views("six"), views("six_official")
    for one, other in zip(exact[:3], official[:3], strict=True):
        assert torch.equal(one.points(point, 256), other.points(point, 256))
    assert [view.points(point, 256).tolist() for view in official[3:]] == [[[1, 253]], [[253, 255]], [[255, 3]]]
    assert [view.points(point, 256).tolist() for view in exact[3:]] == [[[1, 252]], [[252, 254]], [[254, 3]]]
    centre = torch.tensor([[128.0, 128.0]])
    assert all(torch.equal(view.points(centre, 256), centre) for view in official[3:])
    mirrored = exact[1].points(point, 256)
    assert mirrored.tolist() == [[252, 1]]  # x becomes 255 - x
