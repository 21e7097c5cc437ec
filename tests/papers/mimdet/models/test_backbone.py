"""The backbone: shapes, sampling inside encoder and decoder, and its limits at ratio 1 and without padding."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.encoder import Encoder, num_kept, run_blocks, transformer_blocks
from papers.mimdet.models.sampling import put_back, take_tokens
from papers.mimdet.options import SIZES
from shared.errors import ConfigError

MAPS = {"c2": (16, 32, 32), "c3": (32, 16, 16), "c4": (32, 8, 8), "c5": (32, 4, 4)}


def shapes(maps):
    return {name: tuple(value.shape[1:]) for name, value in maps.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fill": "mask_token"},
        {"pyramid": "upsampled"},
        {"stem": "patch", "pyramid": "upsampled"},
        {"decoder_depth": 0},
        {"drop_path": 0.3, "checkpointing": True},
    ],
)
def test_maps_and_gradients_of_every_variant(changed, images, changes):
    model = MimDet(changed(**changes)).train()
    for ratio in (0.5, 1.0):
        model.options = changed(**changes, ratio_train=ratio)
        model.zero_grad()
        maps = model(*images)
        assert shapes(maps) == MAPS
        sum(value.square().mean() for value in maps.values()).backward()
        assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(maps["c5"], nn.functional.max_pool2d(maps["c4"], 2))


def test_stem_widths_of_the_paper():
    with torch.device("meta"):
        model = MimDet(SIZES["vit_b"])
        maps = model.encoder.patch_embed(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 32, 48), (192, 16, 24), (384, 8, 12), (768, 4, 6)]
    names = set(model.encoder.patch_embed.state_dict())
    assert {"proj.0.0.weight", "proj.3.1.bias", "proj.3.3.weight", "proj.3.3.bias"} <= names
    assert not any(name.endswith(".0.bias") for name in names)


def test_a_stems_map_depends_on_the_padding(backbone, images):
    """Its normalisation runs over places, too: the trap that batches of mixed sizes set."""
    pixels = images[0][:1, :, :32, :32]
    padded = torch.zeros(1, 3, 64, 64)
    padded[..., :32, :32] = pixels
    alone, within = backbone.encoder.patch_embed(pixels)[0], backbone.encoder.patch_embed(padded)[0]
    assert not torch.allclose(alone[..., :8, :8], within[..., :8, :8], atol=1e-2)


def plain_tokens(encoder, pixels):
    """The encoder as a plain ViT."""
    features = encoder.patch_embed(pixels)[-1].flatten(2).transpose(1, 2)
    return encoder.norm(run_blocks(encoder.blocks, features + encoder.pos_embed[:, 1:]))


@torch.no_grad()
def test_ratio_one_is_the_plain_vit(backbone, images):
    encoded = backbone.eval().encoder(*images, ratio=1.0)
    assert encoded.order is None
    torch.testing.assert_close(encoded.tokens, plain_tokens(backbone.encoder, images[0]))


@torch.no_grad()
def test_all_tokens_in_a_random_order_are_the_plain_vit(backbone, images, monkeypatch):
    """The released code permutes at ratio 1 as well: attention does not mind."""
    from papers.mimdet.models import encoder as module

    monkeypatch.setattr(module, "num_kept", lambda tokens, ratio: tokens)
    encoded = backbone.eval().encoder(*images, ratio=0.5)
    assert encoded.order is not None
    found = put_back(encoded.tokens, encoded.order)
    torch.testing.assert_close(found, plain_tokens(backbone.encoder, images[0]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_encoder_is_the_vit_on_the_kept_tokens_alone(backbone, images):
    encoded = backbone.eval().encoder(*images, ratio=0.25, generator=torch.Generator().manual_seed(0))
    encoder = backbone.encoder
    tokens = encoder.patch_embed(images[0])[-1].flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    kept = take_tokens(tokens, encoded.order[:, :16])
    torch.testing.assert_close(encoded.tokens, encoder.norm(run_blocks(encoder.blocks, kept)))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.77, 1.0])
def test_tokens_in_each_block_and_its_attention(backbone, images, ratio, monkeypatch):
    seen = []
    attend = nn.functional.scaled_dot_product_attention

    def counting(q, k, v, **rest):
        seen.append((q.shape[2], k.shape[2]))
        return attend(q, k, v, **rest)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counting)
    with torch.no_grad(), backbone.eval().sampling(ratio):
        backbone(*images)
    kept = int(64 * ratio)
    assert seen[:4] == [(kept, kept)] * 4
    assert seen[4:] == [(64, 64)] * 2


def test_padding_is_seen_only_when_nothing_else_is_left(backbone, images):
    """The second image has 35 of 64 tokens: at ratio 0.5 no padding, at 0.75 13 tokens of it."""
    valid = torch.zeros(8, 8, dtype=torch.bool)
    valid[:5, :7] = True
    for ratio, padding in ((0.5, 0), (0.75, 48 - 35)):
        order = backbone.encoder(*images, ratio=ratio).order
        assert int((~valid.flatten()[order[1, : int(64 * ratio)]]).sum()) == padding


@torch.no_grad()
@pytest.mark.parametrize("fill", ["conv", "mask_token"])
def test_what_the_decoder_gets_at_each_place(changed, images, fill):
    model = MimDet(changed(fill=fill)).eval()
    encoded = model.encoder(*images, ratio=0.5)
    features = encoded.maps[-1].flatten(2).transpose(1, 2)
    completed = model.decoder.complete(encoded, features)
    embedded = model.decoder.decoder_embed(encoded.tokens)
    for image in range(2):
        kept, dropped = encoded.order[image].split(32)
        torch.testing.assert_close(completed[image, kept], embedded[image])
        if fill == "conv":
            expected = model.decoder.conv_feat_proj(features[image, dropped])
        else:
            expected = model.decoder.mask_token[0].expand(32, -1)
        torch.testing.assert_close(completed[image, dropped], expected)


@torch.no_grad()
def test_at_ratio_one_the_fill_changes_nothing(backbone, images):
    before = backbone.eval()(*images)["c4"]
    backbone.decoder.conv_feat_proj.weight.fill_(7.0)
    torch.testing.assert_close(backbone(*images)["c4"], before)
    with backbone.sampling(0.5):
        assert not torch.allclose(backbone(*images)["c4"], before, atol=1e-2)


@torch.no_grad()
def test_sampling_at_test_is_a_choice_with_an_end(backbone, images):
    whole = backbone.eval()(*images)["c4"]
    with backbone.sampling(0.25, torch.Generator().manual_seed(0)):
        first, next_one = backbone(*images)["c4"], backbone(*images)["c4"]
    with backbone.sampling(0.25, torch.Generator().manual_seed(0)):
        again = backbone(*images)["c4"]
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)
    assert not torch.equal(first, whole)
    assert torch.equal(backbone(*images)["c4"], whole)


def test_training_samples_and_evaluation_does_not(backbone, images):
    backbone.train()
    assert not torch.equal(backbone(*images)["c4"], backbone(*images)["c4"])
    backbone.eval()
    assert torch.equal(backbone(*images)["c4"], backbone(*images)["c4"])


def test_the_tables_are_resized_once_a_shape_and_not_trained(backbone):
    pixels = torch.randn(1, 3, 48, 80)
    for _ in range(3):
        backbone(pixels, torch.tensor([[48, 80]]))
    assert backbone.encoder.positions.num_resized == 1
    assert backbone.decoder.positions.num_resized == 1
    assert "encoder.pos_embed" in backbone.state_dict()
    assert "pos_embed" not in dict(backbone.encoder.named_parameters())
    twin = copy.deepcopy(backbone).eval()
    torch.testing.assert_close(
        twin(pixels, torch.tensor([[48, 80]]))["c4"], backbone.eval()(pixels, torch.tensor([[48, 80]]))["c4"]
    )


def test_stochastic_depth_rises_linearly():
    with torch.device("meta"):
        blocks = Encoder(SIZES["vit_l"]).blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.4 * k / 23 for k in range(24)])


def test_initial_weights():
    model = MimDet(SIZES["small"])
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert layer.weight.abs().max() <= bound
            assert layer.weight.abs().max() > 0.9 * bound
            assert layer.bias.abs().max() == 0


def test_sides_that_make_no_pyramid(backbone):
    with pytest.raises(ConfigError, match="a batch of 72x64 pixels: sides must be multiples of 16"):
        backbone(torch.zeros(1, 3, 72, 64), torch.tensor([[72, 64]]))


def test_work_falls_with_the_ratio_by_what_theory_says():
    """Operations of a block of ViT-B at 800 x 1344: linear layers fall with the ratio, attention with its square."""
    with torch.device("meta"):
        blocks = transformer_blocks(768, 12, 1)
        for ratio in (0.25, 0.5, 1.0):
            tokens = num_kept(50 * 84, ratio)
            with FlopCounterMode(display=False) as counter:
                run_blocks(blocks, torch.zeros(1, tokens, 768))
            theory = 2 * tokens * 12 * 768**2 + 4 * tokens**2 * 768
            assert counter.get_total_flops() == pytest.approx(theory, rel=1e-3)
