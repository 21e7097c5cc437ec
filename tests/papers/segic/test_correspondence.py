"""Correspondence against what mathematics knows of it."""

import pytest
import torch
import torch.nn.functional as F

from papers.segic.correspondence import highest_points, pooled, prototypes, similarity, token_masks

INDEX = torch.tensor([0])


def block(side=8):
    """A square object of a quarter of the image."""
    mask = torch.zeros(1, side, side)
    mask[:, side // 4 : side // 2 + 1, side // 4 : side // 2 + 1] = 1
    return mask


def test_dense_is_pooled_times_the_length_of_the_mean_where_features_have_norm_one(features):
    unit, tokens = F.normalize(features[:1], dim=1), block()
    v = pooled(unit, INDEX, tokens)
    by_pooled = similarity(unit, v, INDEX, 8)
    by_dense = similarity(unit, prototypes(unit, INDEX, tokens, True), INDEX, 8, dense=True)
    assert torch.allclose(by_pooled * v.norm(), by_dense, atol=1e-6)


def test_dense_is_the_mean_of_all_cosines(features):
    target, example = features[:1], features[1:]
    tokens = block()
    found = similarity(target, prototypes(example, INDEX, tokens, True), INDEX, 8, dense=True)
    pairs = torch.einsum("dhw,dij->hwij", F.normalize(target, dim=1)[0], F.normalize(example, dim=1)[0])
    expected = pairs[:, :, tokens[0] > 0].mean(2)
    assert torch.allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_an_image_resembles_its_own_object_most(features, dense):
    tokens = block()
    structured = features[:1] * 0.3 + 2 * tokens[:, None] * torch.ones(1, 64, 1, 1)
    found = similarity(structured, prototypes(structured, INDEX, tokens, dense), INDEX, 8, dense)
    inside = tokens > 0
    assert found[inside].mean() > found[~inside].mean() + 0.5
    x, y = highest_points(found)[0].long()
    assert inside[0, y, x]


def test_the_cosine_is_that_of_the_enlarged_features(features):
    v = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
    found = similarity(features, v, torch.tensor([1, 0]), 16)
    large = F.interpolate(features, (16, 16), mode="bilinear", align_corners=False)[[1, 0]]
    assert torch.allclose(found, F.cosine_similarity(large, v[:, :, None, None], dim=1), atol=1e-5)


def test_a_mask_without_a_token_has_no_features_and_resembles_nothing(features):
    masks = torch.zeros(1, 32, 32)
    masks[0, 0, 0] = 1
    tokens = token_masks(masks, 8)
    v = pooled(features, INDEX, tokens)
    assert not tokens.any()
    assert not v.any()
    found = similarity(features, v, INDEX, 8)
    assert not found.any()
    assert highest_points(found).tolist() == [[0, 0]]


def test_pooled_is_the_mean_over_the_tokens(features):
    tokens = block()
    assert torch.allclose(
        pooled(features, torch.tensor([1]), tokens)[0], features[1][:, tokens[0] > 0].mean(1), atol=1e-6
    )


def test_values_are_cosines(features):
    v = pooled(features, INDEX, block())
    assert similarity(features, v, INDEX, 16).abs().max() <= 1 + 1e-6


def test_the_first_of_equal_points_in_reading_order_as_x_and_y():
    maps = torch.zeros(1, 4, 5)
    maps[0, 2, 3] = maps[0, 3, 0] = 1
    assert highest_points(maps).tolist() == [[3, 2]]
