"""Masked autoencoding: targets and loss by hand, and weights that the detector's backbone takes."""

import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.pretraining import MaskedAutoencoder
from papers.mimdet.models.weights import load_mae
from papers.mimdet.options import SIZES, PretrainOptions


def patches_of(pixels, side=8):
    """Patches (N, L, 3 * side^2) by torch's unfolding, channels last."""
    columns = torch.nn.functional.unfold(pixels, side, stride=side).unflatten(1, (3, side**2))
    return columns.permute(0, 3, 2, 1).flatten(2)


def test_targets_are_the_pixels_of_patches(images):
    plain = MaskedAutoencoder(SIZES["small"], PretrainOptions(normalise=False))
    torch.testing.assert_close(plain.targets(images[0]), patches_of(images[0]))


def test_the_loss_is_that_of_hidden_patches(images):
    model = MaskedAutoencoder(SIZES["small"], PretrainOptions())
    found = model(images[0], torch.Generator().manual_seed(0))
    sizes = torch.tensor([[64, 64]] * 2)
    encoded = model.encoder(images[0], sizes, 0.25, torch.Generator().manual_seed(0))
    assert encoded.tokens.shape == (2, 16, 64)
    predicted, patches = model.decoder_pred(model.decoder(encoded)), patches_of(images[0])
    errors = []
    for image, order in enumerate(encoded.order):
        for place in order[16:]:
            patch = patches[image, place]
            target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            errors.append((predicted[image, place] - target).square().mean())
    torch.testing.assert_close(found, torch.stack(errors).mean())


def test_the_loss_starts_near_one_and_falls():
    """Targets have unit variance."""
    model = MaskedAutoencoder(SIZES["small"], PretrainOptions())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.nn.functional.interpolate(torch.randn(2, 3, 3, 3), (64, 64), mode="bicubic")
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(pixels, generator)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert 0.9 < values[0] < 2.5
    assert values[-1] < 0.97


def test_its_weights_have_maes_names_and_load(images):
    model = MaskedAutoencoder(SIZES["small"], PretrainOptions())
    state = model.mae_state()
    for name in (
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.3.attn.qkv.weight",
        "norm.bias",
        "decoder_embed.weight",
    ):
        assert name in state
    for name in ("mask_token", "decoder_pos_embed", "decoder_blocks.1.mlp.fc2.bias", "decoder_norm.bias"):
        assert name in state
    backbone = MimDet(SIZES["small"])
    unused = load_mae(backbone, state)
    assert unused == [
        "decoder_pred.bias",
        "decoder_pred.weight",
        "mask_token",
        "patch_embed.proj.bias",
        "patch_embed.proj.weight",
    ]
    torch.testing.assert_close(backbone.encoder.blocks.state_dict(), model.encoder.blocks.state_dict())
    torch.testing.assert_close(backbone.decoder.decoder_blocks.state_dict(), model.decoder.decoder_blocks.state_dict())
