"""The encoder against the package's own, also in its gradients and at another image size."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from shared.segmentation.sam.encoder import RelativeAttention, VitEncoder
from shared.segmentation.sam.features import early_feature
from shared.segmentation.sam.options import SIZES, SamSize, VitSize


def package_encoder(size):
    vit = size.encoder
    return ImageEncoderViT(
        img_size=(vit.grid or size.tokens) * vit.patch,
        patch_size=vit.patch,
        embed_dim=vit.dim,
        depth=vit.depth,
        num_heads=vit.heads,
        out_chans=size.width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=vit.window,
        global_attn_indexes=tuple(vit.global_blocks),
    )


def small_size(**changes):
    vit = {"patch": 8, "dim": 32, "depth": 3, "heads": 2, "window": 3, "global_blocks": [1]} | changes
    return SamSize(image=64, width=16, heads=2, mlp=32, encoder=VitSize(**vit))


# windows that divide the 8x8 tokens (4), that need padding (3), and none
@pytest.mark.parametrize("window", [4, 3, 0])
def test_outputs_and_gradients_are_the_packages(window, images, randomise):
    size = small_size(window=window)
    encoder, package = randomise(VitEncoder(size)), package_encoder(size).eval()
    package.load_state_dict(encoder.state_dict())
    batch = images / 255
    ours, theirs = encoder(batch), package(batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for (name, a), b in zip(encoder.named_parameters(), package.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-4, rtol=2e-3, msg=name)


def test_attention_of_an_uneven_map_is_the_packages(randomise):
    from segment_anything.modeling.image_encoder import Attention

    ours = randomise(RelativeAttention(24, 3, use_rel_pos=True, input_size=(5, 7)))
    package = Attention(24, 3, use_rel_pos=True, input_size=(5, 7))
    package.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 7, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(x), package(x), atol=1e-5, rtol=1e-5)


def test_tables_of_a_larger_grid_are_resized_in_the_forward_pass(images, randomise):
    size = small_size(grid=16)
    encoder, package = randomise(VitEncoder(size)), package_encoder(size).eval()
    assert encoder.pos_embed.shape == (1, 16, 16, 32)
    assert encoder.blocks[1].attn.rel_pos_h.shape[0] == 31
    assert encoder.blocks[0].attn.rel_pos_h.shape[0] == 5
    package.load_state_dict(encoder.state_dict())
    table = F.interpolate(encoder.pos_embed.permute(0, 3, 1, 2), (8, 8), mode="bicubic", align_corners=False)
    package.pos_embed = nn.Parameter(table.permute(0, 2, 3, 1))  # the relative tables the package resizes itself
    torch.testing.assert_close(encoder(images / 255), package(images / 255), atol=1e-5, rtol=1e-5)
    assert encoder.img_size == 64


def test_resizing_to_the_own_size_changes_nothing(images, randomise):
    encoder = randomise(VitEncoder(small_size()))
    same = randomise(VitEncoder(small_size(grid=8)))
    same.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(images / 255), same(images / 255))


def test_early_feature_is_the_output_of_the_first_global_block(images, randomise):
    encoder = randomise(VitEncoder(SIZES["small_patch8"]))
    x = encoder.patch_embed(images / 255) + encoder.pos_embed
    expected = encoder.blocks[1](encoder.blocks[0](x))
    with early_feature(encoder) as kept:
        encoder(images / 255)
    assert expected.shape == (3, 8, 8, 64)
    assert torch.equal(kept[0], expected)
    encoder(images / 255)
    assert len(kept) == 1  # the hook is gone


@pytest.mark.parametrize(("name", "first"), [("vit_b", 2), ("vit_l", 5), ("vit_h", 7)])
def test_early_block_of_the_published_sizes(name, first):
    with torch.device("meta"):
        encoder = VitEncoder(SIZES[name])
    assert encoder.early_module is encoder.blocks[first]
