import pytest
import torch

from shared.segmentation.sam.prompts import Prompts, encode_prompts


def boxes(n, image=0):
    return Prompts(torch.full((n,), image), boxes=torch.tensor([[4.0, 5.0, 30.0, 40.0]]).repeat(n, 1))


def points(n, number, label=1):
    generator = torch.Generator().manual_seed(number)
    return Prompts(
        torch.zeros(n, dtype=torch.long),
        points=torch.rand(n, number, 2, generator=generator) * 64,
        labels=torch.full((n, number), label),
    )


def masks(n):
    return Prompts(torch.zeros(n, dtype=torch.long), masks=torch.rand(n, 1, 32, 32) * 255)


@pytest.mark.parametrize(("prompts", "tokens"), [(boxes(3), 2), (points(3, 10), 11), (points(3, 1), 2), (masks(3), 0)])
def test_tokens_of_each_kind_are_the_packages(small, prompts, tokens):
    encoded = encode_prompts(small.prompt_encoder, prompts)
    given = None if prompts.points is None else (prompts.points, prompts.labels)
    sparse, dense = small.prompt_encoder(points=given, boxes=prompts.boxes, masks=prompts.masks)
    assert encoded.sparse.shape == (3, tokens, 64)
    assert encoded.valid is None
    assert torch.equal(encoded.sparse, sparse)
    torch.testing.assert_close(encoded.dense.expand(3, 64, 8, 8), dense)


def test_kinds_are_padded_to_the_longest_and_the_padding_is_marked(small):
    groups = [masks(1), points(2, 3), boxes(2)]
    encoded = encode_prompts(small.prompt_encoder, groups)
    assert encoded.sparse.shape == (5, 4, 64)
    assert encoded.valid.sum(1).tolist() == [0, 4, 4, 2, 2]
    assert encoded.valid[3].tolist() == [True, True, False, False]
    assert encoded.dense.shape == (5, 64, 8, 8)
    none = small.prompt_encoder.no_mask_embed.weight.reshape(64, 1, 1).expand(64, 8, 8)
    assert torch.equal(encoded.dense[4], none)
    assert not torch.equal(encoded.dense[0], none)


def test_padding_points_get_the_embedding_of_no_point(small):
    encoded = encode_prompts(small.prompt_encoder, points(2, 1, label=-1))
    none = small.prompt_encoder.not_a_point_embed.weight[0]
    assert torch.equal(encoded.sparse, none.expand(2, 2, 64))


def test_prompts_without_anything_give_no_tokens(small):
    encoded = encode_prompts(small.prompt_encoder, Prompts(torch.tensor([0, 1, 1])))
    assert encoded.sparse.shape == (3, 0, 64)


def test_slices_keep_all_parts_together():
    chosen = points(5, 3)[1:3]
    assert len(chosen) == 2
    assert chosen.points.shape == (2, 3, 2)
    assert chosen.boxes is None


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="points and labels go together"):
        Prompts(torch.zeros(1), points=torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match=r"boxes has shape \(2, 4\), expected 2 axes and 3 prompts"):
        Prompts(torch.zeros(3), boxes=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="no prompts given"):
        encode_prompts(None, [])
